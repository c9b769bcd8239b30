"""`sgl-swap`: recombine files without decoding a picture: swap, join, trim, drop, strip, detach."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from sglat.cli.common import new_app, printable, run, say
from sglat.cli.options import (
    Label,
    LabelText,
    MarksItself,
    Sign,
    SignCertificate,
    SignKey,
    check_word,
    chosen_label,
    chosen_signer,
)
from sglat.errors import UsageError
from sglat.files import atomic_file, open_input, refuse_existing

if TYPE_CHECKING:
    from sglat.bitstream.join import Joined

app = new_app("Recombine .sglat files without decoding a picture.")

SAME_PERSON: Final = 0.4
"""Cosine of identity vectors of two rendered looks from which they are one person's. Of the six
clips, tuned, untuned, cut and at the border, looks of one person had 0.51 and more, of two people
at most 0.27."""
Edit = Callable[[BinaryIO, BinaryIO], object]


@app.command()
def swap(
    out: Annotated[Path, typer.Argument(help="The new file.")],
    motion: Annotated[
        list[Path],
        typer.Option(
            help="Whose motion: .sglat, or .csv or .h5 of sgl-info; several are joined. Or "
            "scene.json with --look; the output is a folder then."
        ),
    ],
    identity: Annotated[Path | None, typer.Option(help="Whose look; default: unchanged.")] = None,
    looks: Annotated[
        list[str] | None,
        typer.Option(
            "--look",
            metavar="N=M|FILE",
            help="Person N of a scene with the look of its person M or of a .sglat file; several "
            "exchange looks: --look 1=2 --look 2=1.",
        ),
    ] = None,
    span: Annotated[
        str | None,
        typer.Option(
            "--trim", metavar="A:B", help="Keep the frames that begin from A to B seconds."
        ),
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Keep this many identity layers.")] = None,
    is_stripped: Annotated[
        bool, typer.Option("--strip", help="Remove metadata, thumbnail and settings.")
    ] = False,
    identity_file: Annotated[
        Path | None, typer.Option(help="Move the identity into a file of its own.")
    ] = None,
    is_attached: Annotated[
        bool, typer.Option("--attach", help="Put the identity in that the file refers to.")
    ] = False,
    label: Label = None,
    label_text: LabelText = None,
    marks_itself: MarksItself = False,
    sign: Sign = None,
    sign_cert: SignCertificate = None,
    sign_key: SignKey = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Write a file with the motion of one and the look of another.

    Steps run in the order join, trim, swap or attach, layers, strip, identity file, label, sign.
    """
    from sglat.bitstream import edits, join, timeline
    from sglat.bitstream.scene import is_scene
    from sglat.cli.scenes import exchange
    from sglat.marks import provenance

    if looks or is_scene(motion[0]):
        unused = (identity, span, layers, identity_file, label, label_text)
        if len(motion) > 1 or is_stripped or is_attached or any(one is not None for one in unused):
            raise UsageError(
                "bad-options",
                f"{motion[0]}: a scene is changed by --look, --sign and --force alone",
            )
        if not looks or not is_scene(motion[0]):
            raise UsageError(
                "bad-options", f"{motion[0]}: a scene as --motion and --look N=M need each other"
            )
        signer, unsigned = chosen_signer(sign, sign_cert, sign_key, is_media=False)
        exchange(motion[0], looks, out, signer=signer, force=force)
        for line in unsigned:
            say(line)
        return
    if is_attached and identity is None:
        raise UsageError("no-identity-file", "--attach needs --identity")
    for written in (out, identity_file):
        if written is not None:
            others = [path for path in (out, identity_file) if path is not written]
            refuse_existing(written, force=force, inputs=[*motion, identity, *others])
    check_word(True, label, marks_itself)
    text = chosen_label(label, label_text)
    signer, unsigned = chosen_signer(sign, sign_cert, sign_key, is_media=False)
    with ExitStack() as stack:
        files = [_motion_file(path, identity, stack) for path in motion]
        steps: list[Edit] = []
        if span is not None:
            first, last = _span(span)
            steps.append(lambda a, b: timeline.trim(a, b, start_seconds=first, end_seconds=last))
        if identity is not None:
            look = stack.enter_context(open_input(identity))
            put = edits.attach if is_attached else edits.swap
            steps.append(lambda a, b: put(a, look, b))
        if layers is not None:
            steps.append(lambda a, b: edits.drop_layers(a, b, keep=layers))
        if is_stripped:
            steps.append(edits.strip)
        target = stack.enter_context(atomic_file(out, force=force))
        if identity_file is not None:
            alone = stack.enter_context(atomic_file(identity_file, force=force))
            hint = identity_file.name.encode("utf-8", "replace").decode()
            steps.append(lambda a, b: edits.detach(a, b, alone, hint=hint))
        if text is not None:
            steps.append(lambda a, b: provenance.put_label(a, b, text))
        if signer is not None:
            steps.append(lambda a, b: provenance.sign(a, b, signer))
        if len(files) > 1:
            joined = stack.enter_context(TemporaryFile())
            names = [str(path) for path in motion]
            for change in join.concat(files, joined, names=names):
                for line in _join_notes(change, names, files):
                    say(line)
            files = [joined]
        _run_steps(files[0], steps, target, stack)
    _report(out)
    for line in [*_provenance_notes(out), *unsigned]:
        say(line)


def _motion_file(path: Path, identity: Path | None, stack: ExitStack) -> BinaryIO:
    """Open a motion file; a table is first turned into one."""
    from sglat.bitstream.motion_table import file_of_table, load_table

    if path.suffix.lower() not in (".csv", ".h5", ".hdf5"):
        return stack.enter_context(open_input(path))
    if identity is None:
        raise UsageError("no-identity-file", f"{path.name} has no look of its own: add --identity")
    built: BinaryIO = stack.enter_context(TemporaryFile())  # noqa: SIM115
    with open_input(identity) as look:
        file_of_table(load_table(path), look, built)
    built.seek(0)
    return built


def _join_notes(change: Joined, names: list[str], files: list[BinaryIO]) -> list[str]:
    """Return what a user should know of a joined file, one line each."""
    name, lines = names[change.number], []
    if change.has_other_look:
        who = _likeness_note(files[0], files[change.number], names[0])
        lines.append(
            f"{name}: made by another encoding{who}; its motion is shown with the look of "
            f"{names[0]}"
        )
    if change.requantized_frames:
        lines.append(
            f"{name}: its motion is quantized again, with an error (rms) of "
            f"{change.rms_degrees:.3f} degrees of yaw and pitch, {change.rms_controls:.4f} of the "
            f"controls, {change.rms_steps:.2f} steps"
        )
    if change.is_resized:
        lines.append(f"{name}: frames of another size; its placement is scaled to {names[0]}'s")
    return lines


def _likeness_note(first: BinaryIO, other: BinaryIO, name: str) -> str:
    """Return whether two files show the same person, for a message; nothing if they do."""
    from sglat.errors import SglatError

    try:
        cosine = _likeness(first, other)
    except SglatError as error:
        return f" (whether it shows the person of {name} was not checked: {error.message})"
    if cosine >= SAME_PERSON:
        return ""
    return f" and of another person than {name} (similarity {cosine:.2f})"


def _likeness(first: BinaryIO, other: BinaryIO) -> float:
    """Return the cosine of the identity vectors of two files' looks, rendered as in the ID frame.

    Raises:
        SglatError: the bundle or the look is elsewhere, or the bundle has no face networks.
    """
    from sglat.bitstream.reader import Reader, identity_beside, load_identity
    from sglat.bundles.bundle import bundle_for
    from sglat.decoder.synthesizer import portrait
    from sglat.errors import UsageError

    vectors = []
    for file in (first, other):
        file.seek(0)
        reader = Reader(file)
        look, reference = reader.identity, reader.identity_reference
        if look is None and reference and (path := identity_beside(file, reference)):
            look = load_identity(path)
        if look is None:
            raise UsageError("no-identity", "its look lies in another file")
        bundle = bundle_for(reader.header)
        vectors.append(bundle.faces.embed(portrait(bundle, look))[0])
    return float(vectors[0] @ vectors[1])


def _span(text: str) -> tuple[Fraction, Fraction]:
    first, _, last = text.partition(":")
    try:
        span = Fraction(first or "0"), Fraction(last or str(1 << 40))
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError("bad-span", f"expected A:B in seconds, found {text!r}") from error
    if not span[0] < span[1]:
        raise UsageError("bad-span", f"expected A before B, found {text!r}")
    return span


def _run_steps(file: BinaryIO, steps: list[Edit], out: BinaryIO, stack: ExitStack) -> None:
    """Run edits one after the other through temporary files; with none, rewrite the file."""
    from sglat.bitstream.edits import rewrite

    for step in steps[:-1]:
        file.seek(0)
        between: BinaryIO = stack.enter_context(TemporaryFile())  # noqa: SIM115
        step(file, between)
        file = between
    file.seek(0)
    last = steps[-1] if steps else rewrite
    last(file, out)


def _report(out: Path) -> None:
    from sglat.bitstream.info import describe

    with out.open("rb") as file:
        record = describe(file)
    motion = record["motion"]
    length = "no motion"
    if motion:
        length = f"{motion['frames']} frames, {motion['duration_seconds']:.2f} s"
    say(f"{out}: {length}, {record['file_bytes']} bytes")
    provenance = record["provenance"]
    if provenance:
        say(f"consent: {printable(provenance['consent'] or 'no statement')}")


def _provenance_notes(out: Path) -> list[str]:
    """Return what a user should know of the provenance of a file, one line each."""
    from sglat.bitstream.origins import NO_CONSENT
    from sglat.marks.label import wanted_label
    from sglat.marks.provenance import read_provenance

    with out.open("rb") as file:
        found = read_provenance(file)
    if found.record is None:
        return ["provenance: the file does not say who made it"]
    lines, signature = [], found.signature
    if label := wanted_label(found.record.extra):
        lines.append(f"label: {label}")
    lost = sum(origin.record is None for origin in found.origins)
    if lost:
        lines.append(f"provenance: {lost} records of origin did not fit, their hashes are kept")
    if NO_CONSENT in found.record.note:
        lines.append("warning: no consent statement of the person shown; the file records that")
    who = printable(signature.signer)
    if signature.state == "holds" and found.is_covered:
        lines.append(f"signed by {who}")
    elif signature.state != "none":
        lines.append(
            f"the signature of {who} is for the file before this edit; --sign signs the new one"
        )
    return lines


def main() -> None:
    """Run `sgl-swap`."""
    run(app)


if __name__ == "__main__":
    main()
