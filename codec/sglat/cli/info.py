"""`sgl-info`: what is in a file, is it whole, and its motion as a table.

argparse instead of typer: typer takes longer to import than this command takes to run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglat.cli.common import open_source, printable, run, say
from sglat.files import atomic_file, refuse_existing
from sglat.version import __version__


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """What the command line asked for."""

    file: Path
    as_json: bool = False
    is_verified: bool = False
    salvage: Path | None = None
    export: Path | None = None
    plot: Path | None = None
    has_curves: bool = False
    force: bool = False


def parse(arguments: Sequence[str] | None = None) -> InfoOptions:
    """Read the command line; wrong usage ends the program with status 2."""
    parser = argparse.ArgumentParser(prog="sgl-info", description="Show what is in an .sglat file.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("file", type=Path, help="the file; - reads standard input")
    add = parser.add_argument
    add("--json", action="store_true", dest="as_json", help="machine-readable")
    add(
        "--verify",
        action="store_true",
        dest="is_verified",
        help="decode all motion and compare its hash",
    )
    add("--salvage", type=Path, metavar="OUT", help="write what stands before the damage")
    add("--export", type=Path, metavar="OUT", help="write the motion as .csv or .h5")
    add("--plot", type=Path, metavar="OUT", help="draw curves, layers and rate as .svg or .png")
    add("--curves", action="store_true", dest="has_curves", help="show the motion as lines of text")
    add("--force", action="store_true", help="replace existing files")
    return InfoOptions(**vars(parser.parse_args(arguments)))


def info(options: InfoOptions) -> int:
    """Do what was asked; return the exit status."""
    if options.salvage is not None:
        _salvage(options.file, options.salvage, force=options.force)
        return 0
    if options.export is not None:
        _export(options.file, options.export, force=options.force)
        return 0
    if options.plot is not None or options.has_curves:
        _draw(options)
        return 0
    return _show(options)


def _show(options: InfoOptions) -> int:
    from sglat.bitstream.info import describe, verify

    with open_source(options.file) as stream:
        record: dict[str, Any]
        if options.is_verified:
            digest = verify(stream)
            if not options.as_json:
                print(f"verified: motion {digest}")
                return 0
            if not stream.seekable():
                print(json.dumps({"motion_sha256": digest, "is_verified": True}, indent=1))
                return 0
            stream.seek(0)
        record = describe(stream)
    record["is_verified"] = options.is_verified
    print(json.dumps(record, indent=1, ensure_ascii=False) if options.as_json else table(record))
    error = record["error"]
    if error is None:
        return 0
    place = "" if error["offset"] is None else f" (at byte {error['offset']})"
    say(f"error: {error['code']}: {options.file}: {error['message']}{place}")
    return 1


def _salvage(file: Path, target: Path, *, force: bool) -> None:
    from sglat.bitstream.edits import salvage

    refuse_existing(target, force=force, inputs=[file])
    with open_source(file) as stream, atomic_file(target, force=force) as out:
        damage = salvage(stream, out)
    say("the file was whole" if damage is None else f"kept everything before: {damage}")


def _export(file: Path, target: Path, *, force: bool) -> None:
    from sglat.bitstream.motion_table import read_table, save_table

    refuse_existing(target, force=force, inputs=[file])
    with open_source(file) as stream:
        motion_table = read_table(stream)
    save_table(motion_table, target, force=force)
    say(f"{len(motion_table.motion.values)} frames")


def _draw(options: InfoOptions) -> None:
    """Write the plot, print the curves."""
    from sglat.bitstream.curves import LEVELS, read_curves
    from sglat.cli.curves import curve_lines
    from sglat.cli.plot import check_suffix, draw_plot

    target = options.plot
    if target is not None:
        check_suffix(target)
        refuse_existing(target, force=options.force, inputs=[options.file])
    with open_source(options.file) as stream:
        curves = read_curves(stream)
    if target is not None:
        data = draw_plot(curves, printable(options.file.name), check_suffix(target))
        with atomic_file(target, force=options.force) as out:
            out.write(data)
        say(f"{target}: {len(curves.seconds)} frames")
    if options.has_curves:
        coding = sys.stdout.encoding or "ascii"
        is_plain = LEVELS.encode(coding, "replace").decode(coding, "replace") != LEVELS
        columns = shutil.get_terminal_size().columns
        print("\n".join(curve_lines(curves, columns, is_plain=is_plain)))


def table(record: dict[str, Any]) -> str:
    """Return the figures for people."""
    rows = [
        ("format", f"{record['version']}, {record['file_bytes']} bytes"),
        ("bundle", f"{record['bundle']} ({record['decoder_id'][:16]}), {record['resolution']} px"),
        ("encoder", record["encoder"] or "-"),
        *_source_rows(record),
        *_enrolled_rows(record["settings"]),
        *_identity_rows(record["identity"]),
        *_motion_rows(record),
    ]
    sound = record["audio"]
    if sound:
        size = f"{sound['packets']} packets, {sound['bytes']} bytes"
        kind = f"{sound['codec']}, {sound['sample_rate']} Hz, {sound['channels']} ch"
        rows.append(("audio", f"{kind}, {sound['duration_seconds']:.2f} s, {size}"))
    for key in ("plate", "thumbnail"):
        if record[key]:
            rows.append((key, f"{record[key]['media_type']}, {record[key]['bytes']} bytes"))
    provenance = record["provenance"]
    if provenance:
        rows.append(("synthetic", f"generated by {provenance['generated_by']}"))
        rows.append(("consent", provenance["consent"] or "no statement"))
        if provenance["note"]:
            rows.append(("note", provenance["note"]))
        rows += [("edited", text) for text in provenance["edits"]]
    rows += [(f"  {key}", value) for key, value in record["metadata"].items()]
    share = 100 * record["container_bytes"] / max(1, record["file_bytes"])
    rows.append(("container", f"{record['container_bytes']} bytes ({share:.2f} %)"))
    if record["unknown_chunks"]:
        rows.append(("unknown", ", ".join(record["unknown_chunks"])))
    rows.append(("complete", "yes" if record["is_complete"] else "no"))
    return "\n".join(f"{printable(name):<10} {printable(value)}" for name, value in rows)


def _source_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    if record["source_size"] is None:
        return []
    width, height = record["source_size"]
    face = record["settings"].get("face_pixels")
    return [("source", f"{width}x{height}" + (f", face crop {face} px" if face else ""))]


def _enrolled_rows(settings: dict[str, str]) -> list[tuple[str, str]]:
    found = settings.get("enrolled")
    return [("enrolled", f"from {found}")] if found else []


def _identity_rows(identity: dict[str, Any]) -> list[tuple[str, str]]:
    reference = identity["reference"]
    if reference:
        return [("identity", f"in another file, {reference['sha256'][:16]} {reference['hint']}")]
    if not identity["layers"]:
        return []
    rows = [("identity", f"{identity['bytes']} bytes, {identity['sha256'][:16]}")]
    for layer in identity["layers"]:
        size = f"{layer['bytes']} bytes, {layer['integers']} integers"
        upto = f" up to {layer['resolution']} px" if layer["resolution"] else ""
        rows.append((f"  layer {layer['number']}", f"{layer['kind']}{upto}, {size}"))
    return rows


def _motion_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    motion = record["motion"]
    if not motion:
        return [("motion", "none")]
    rate = motion["frames_per_second"] or 0.0
    kind = "" if motion["is_constant_rate"] else " (variable)"
    length = f"{motion['frames']} frames, {motion['duration_seconds']:.2f} s, {rate:.3f} fps{kind}"
    cost = f"{motion['bits_per_frame']:.1f} bits a frame"
    groups = f"{motion['bytes']} bytes in {motion['groups']} groups"
    rows = [("motion", length), ("  coded", f"{cost}, {groups}")]
    if motion["held_frames"] or motion["cuts"]:
        rows.append(("  marks", f"{motion['held_frames']} held, {motion['cuts']} cuts"))
    if record["source_size"]:
        width, height = record["source_size"]
        rows.append(("  placed in", f"{width}x{height}, {motion['placement_bytes']} bytes"))
    return rows


def main() -> None:
    """Run `sgl-info`."""
    # Starting the threads of a linear algebra library costs more than this command.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    options = parse()
    run(lambda: sys.exit(info(options)))


if __name__ == "__main__":
    main()
