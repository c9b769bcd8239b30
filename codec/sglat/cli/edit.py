"""`sgl-edit`: change the motion of a file by name, without any network.

argparse instead of typer: edits of several kinds act in the order in which they are given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sglat.cli.common import open_source, printable, run, say
from sglat.files import atomic_file, refuse_existing
from sglat.version import __version__

if TYPE_CHECKING:
    from sglat.bitstream.edit_file import EditReport

ABOUT: Final = "Edit the motion of an .sglat file by name; what no edit names stays bit for bit."
MORE: Final = """\
edits, in the order given, each on what the ones before have left:
  --set "mouth 3+0.4@2s-4s"  add 0.4; = brings to a value, - takes away; "pose=neutral" too
  --gain eyes=1.2            distance from the person's neutral times 1.2
  --smooth pose=0.3          by a Gaussian of 0.3 s standard deviation, not across cuts
  --only mouth               all other channels at neutral
  --freeze pose@1s           value of 1 s over the clip; pose@1s- from then on; pose@1s-2s
  --neutral                  all channels at neutral
  --retime 1.5               1.5 times as fast: each frame lasts 1/1.5 as long, no value changes;
                             sound is dropped, since packets cannot be stretched without decoding
  --mix eyes:other.sglat     channels of another file, first frame at first frame, as difference
                             from its neutral; of a .csv or .h5 with one row a frame, by column

controls: mouth 1 … mouth 17, chin 1 … 4, eyes 1 … 6, brows 1 … 4, gaze 1, yaw, pitch; or pose,
mouth, chin, eyes, brows, gaze, controls, all; several between commas. The bundle's own names too.
values: degrees for yaw and pitch (5 or 5deg), units of the bundle for controls: sgl-info --curves
shows each one's least and most in a file.
ranges: @2s-4s, @2s- or @-4s by the file's clock, end excluded; @2s is the frame on screen then.
Times are 2s, 2, 500ms, 1:02.5 or 50f (frame 50). Ends ramp inside the range for 0.12 s, at most a
quarter of it, but not at the ends of the clip; @2s-4s~0.5s sets the ramp, ~0s removes it.
"""


@dataclass
class EditOptions:
    """What the command line asked for."""

    file: Path
    out: Path
    edits: list[tuple[str, str]] = field(default_factory=list)
    sign: bool | None = None
    sign_cert: Path | None = None
    sign_key: Path | None = None
    force: bool = False


class _InOrder(argparse.Action):
    """Collects edits of all kinds in one list."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        text = values if isinstance(values, str) else ""
        name = (option_string or "").lstrip("-")
        namespace.edits = [*(namespace.edits or []), (name, text)]


def parse(arguments: Sequence[str] | None = None) -> EditOptions:
    """Read the command line; wrong usage ends the program with status 2."""
    parser = argparse.ArgumentParser(
        prog="sgl-edit", description=ABOUT, epilog=MORE, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("file", type=Path, help="the file; - reads standard input")
    parser.add_argument("out", type=Path, help="the new file")
    edits = parser.add_argument_group("edits")
    for name, form in (
        ("set", "EDIT"), ("gain", "C=FACTOR"), ("smooth", "C=SECONDS"), ("only", "C"),
        ("freeze", "C@TIME"), ("retime", "SPEED"), ("mix", "C:FILE"),
    ):  # fmt: skip
        edits.add_argument(f"--{name}", dest="edits", action=_InOrder, metavar=form)
    edits.add_argument("--neutral", dest="edits", action=_InOrder, nargs=0)
    add = parser.add_argument
    add(
        "--sign",
        action=argparse.BooleanOptionalAction,
        help="sign the output; default: if there is a key of sgl-marks init",
    )
    add("--sign-cert", type=Path, metavar="PEM", help="your certificate and its issuers")
    add("--sign-key", type=Path, metavar="PEM", help="the private key of --sign-cert")
    add("--force", action="store_true", help="replace an existing file")
    found = vars(parser.parse_args(arguments))
    found["edits"] = found["edits"] or []
    return EditOptions(**found)


def edit(options: EditOptions) -> int:
    """Read all edits, then write the file; return the exit status."""
    from sglat.bitstream.edit_grammar import parse_edit
    from sglat.bundles.names import control_names
    from sglat.cli.options import chosen_signer
    from sglat.marks.editing import edit_stream

    parsed = [parse_edit(name, text) for name, text in options.edits]
    others = [each.source for each in parsed if each.source is not None]
    refuse_existing(options.out, force=options.force, inputs=[options.file, *others])
    signer, unsigned = chosen_signer(
        options.sign, options.sign_cert, options.sign_key, is_media=False
    )
    with ExitStack() as stack:
        file = _opened(options.file, stack)
        out = stack.enter_context(atomic_file(options.out, force=options.force))
        report = edit_stream(file, out, parsed, own_names=control_names, signer=signer)
    for line in [*_lines(options.out, report, is_signed=signer is not None), *unsigned]:
        say(line)
    return 0


def _opened(path: Path, stack: ExitStack) -> BinaryIO:
    """Open a file; standard input and pipes are copied, since edits read twice."""
    file = stack.enter_context(open_source(path))
    if str(path) != "-" and file.seekable():
        return file
    kept: BinaryIO = stack.enter_context(TemporaryFile())  # noqa: SIM115
    copyfileobj(file, kept)
    kept.seek(0)
    return kept


def _lines(out: Path, report: EditReport, *, is_signed: bool) -> list[str]:
    """Return what was done, and what a user should know."""
    changed = f"{report.changed} changed in {report.changed_frames}" if report.changed else ""
    lines = [f"{out}: {report.frames} frames, {changed or 'no value changed'}"]
    lines += [printable(note) for note in report.notes]
    if report.is_sound_dropped:
        lines.append("sound: dropped, the speed has changed; sgl-decode --audio FILE adds other")
    if is_signed:
        lines.append("signed anew; the record of origin names the edits")
    elif report.was_signed:
        lines.append(
            "the signature of the file before stays as a record of origin; --sign signs the new one"
        )
    return lines


def main() -> None:
    """Run `sgl-edit`."""
    options = parse()
    run(lambda: sys.exit(edit(options)))


if __name__ == "__main__":
    main()
