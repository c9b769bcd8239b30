"""Options of the commands that encode; apart from what all commands share, since typer takes longer
to import than `sgl-info` takes to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sglat.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from sglat.marks.keys import Signer

Bundle = Annotated[str, typer.Option(help="Name or folder of the weights.")]
Preset = Annotated[
    Literal["live", "fast", "default", "best"], typer.Option(help="Time against quality.")
]
IdentityBytes = Annotated[int, typer.Option(min=2048, help="Most bytes for the person's look.")]
TuneSteps = Annotated[
    int | None, typer.Option(min=1, help="Tuning steps; fewer are faster and worse.")
]
Consent = Annotated[
    str, typer.Option(help="The pictured person's statement of consent, kept in the file.")
]
Device = Annotated[
    str,
    typer.Option(
        help="auto (a GPU if present), cpu, cuda or mps; cuda and mps are untested on hardware."
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="Processor threads; 0: all.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
WorkFolder = Annotated[
    Path | None, typer.Option(help="Folder for unfinished work; default: beside the output.")
]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Continue unfinished work.")]
Sign = Annotated[
    bool | None,
    typer.Option(
        "--sign/--no-sign", help="Sign the output; default: if there is a key of sgl-marks init."
    ),
]
SignCertificate = Annotated[
    Path | None, typer.Option("--sign-cert", help="PEM file with your certificate and its issuers.")
]
SignKey = Annotated[
    Path | None, typer.Option("--sign-key", help="PEM file with the private key of --sign-cert.")
]

Marked = Annotated[
    bool,
    typer.Option("--watermark/--no-watermark", help="Mark the pictures invisibly as generated."),
]
MarksItself = Annotated[
    bool,
    typer.Option(
        "--i-will-mark-it-myself",
        help="Your word, which --no-watermark needs, and --no-label against the file's wish.",
    ),
]
Label = Annotated[
    bool | None,
    typer.Option(
        "--label/--no-label",
        help='Write "AI-generated" into a corner of the pictures; default: as the file asks.',
    ),
]
LabelText = Annotated[
    str | None, typer.Option("--label-text", help="Another text for --label, in Latin letters.")
]


def chosen_label(label: bool | None, text: str | None) -> str | None:
    """Return the label as asked for: a text, empty for none, None for what a file asks for.

    Raises:
        UsageError: a text that cannot be drawn; one with `--no-label`.
    """
    from sglat.marks.label import DEFAULT_LABEL, check_label

    if label is False and text is not None:
        raise UsageError("bad-options", "--no-label contradicts --label-text")
    if text is not None:
        return check_label(text)
    return {True: DEFAULT_LABEL, False: "", None: None}[label]


def check_word(is_marked: bool, label: bool | None, marks_itself: bool) -> None:
    """Refuse to leave out marks without the user's word.

    Raises:
        UsageError: `unmarked`.
    """
    if not is_marked and not marks_itself:
        raise UsageError(
            "unmarked",
            "--no-watermark leaves generated pictures unmarked; add --i-will-mark-it-myself",
        )
    if label is False and not marks_itself:
        raise UsageError(
            "unmarked",
            "--no-label leaves out the label that a file asks for; add --i-will-mark-it-myself",
        )


def chosen_signer(
    sign: bool | None, certificate: Path | None, key: Path | None, *, is_media: bool
) -> tuple[Signer | None, list[str]]:
    """Return who signs an output, checked before any work is done for it.

    Args:
        sign: as asked for; None signs with a key if there is one.
        certificate: of `--sign-cert`.
        key: of `--sign-key`.
        is_media: the output is a video or picture, not a `.sglat` file.

    Returns:
        The signer or None, and why a key that is there is not used, one line each.

    Raises:
        UsageError: there is no key, or one that cannot be used.
        MissingExtraError: a library that signing needs.
    """
    from sglat.marks.c2pa import load_library
    from sglat.marks.keys import config_folder, find_signer

    is_wanted = bool(sign) or certificate is not None or key is not None
    if sign is False:
        if certificate is not None or key is not None:
            raise UsageError("bad-options", "--no-sign contradicts --sign-cert and --sign-key")
        return None, []
    try:
        signer = find_signer(certificate, key)
        if signer is not None and is_media:
            load_library()
    except MissingExtraError as error:
        if is_wanted:
            raise
        return None, [f"not signed: {error.message}"]
    if signer is None and is_wanted:
        raise UsageError(
            "no-key", f"--sign found no key in {config_folder()}; make one: sgl-marks init NAME"
        )
    if signer is None or is_media or signer.algorithm == "ed25519":
        return signer, []
    fault = f".sglat files are signed with Ed25519 keys, found {signer.algorithm}"
    if is_wanted:
        raise UsageError("bad-key", fault)
    return None, [f"not signed: {fault}"]


def common_settings(
    target: Path, workfile: Path | None, face: int, like: Path | None, threads: int
) -> dict[str, Any]:
    """Return the fields of `EncodeConfig` that encoding and enrolling fill in the same way.

    Args:
        target: the output, beside which unfinished work goes by default.
        workfile: as asked for, or None.
        face: number of the face, from 1.
        like: picture of the person instead of `face`, or None.
        threads: processor threads; 0: all.

    Raises:
        UsageError: `face` and `like` at once.
    """
    from sglat.encoder.workfile import default_workfile

    if like is not None and face != 1:
        raise UsageError("bad-options", "--face and --like contradict each other")
    return {
        "face": face,
        "like": like,
        "workfile": workfile or default_workfile(target),
        "threads": threads or None,
    }


def stopped_line(workfile: Path) -> str:
    """Return what is said after an interruption."""
    return f"stopped; unfinished work is kept in {workfile}, the same command goes on from there"
