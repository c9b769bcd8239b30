"""`sgl-info`: what is in a file, is it whole, and its motion as a table.

argparse instead of typer: typer takes longer to import than this command takes to run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sglat.cli.common import run, say


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """What the command line asked for."""

    file: Path
    as_json: bool = False
    is_verified: bool = False
    salvage: Path | None = None
    export: Path | None = None
    is_forced: bool = False


def parse(arguments: Sequence[str] | None = None) -> InfoOptions:
    """Read the command line; wrong usage ends the program with status 2."""
    parser = argparse.ArgumentParser(prog="sgl-info", description="Show what is in an .sglat file.")
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
    add("--force", action="store_true", dest="is_forced", help="replace existing files")
    return InfoOptions(**vars(parser.parse_args(arguments)))


def info(options: InfoOptions) -> int:
    """Do what was asked; return the exit status."""
    if options.salvage is not None:
        _salvage(options.file, options.salvage, is_forced=options.is_forced)
        return 0
    if options.export is not None:
        _export(options.file, options.export, is_forced=options.is_forced)
        return 0
    return _show(options)


def _show(options: InfoOptions) -> int:
    from sglat.bitstream.info import describe, verify

    with _opened(options.file) as stream:
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
    say(f"error: {error['code']}: {error['message']}{place}")
    return 1


def _opened(file: Path) -> BinaryIO:
    from sglat.errors import UsageError

    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as error:
        raise UsageError("no-file", f"{file}: {error.strerror}") from error


def _salvage(file: Path, target: Path, *, is_forced: bool) -> None:
    from sglat.bitstream.edits import salvage
    from sglat.bitstream.muxer import atomic_file

    with _opened(file) as stream, atomic_file(target, is_forced=is_forced) as out:
        damage = salvage(stream, out)
    say("the file was whole" if damage is None else f"kept everything before: {damage}")


def _export(file: Path, target: Path, *, is_forced: bool) -> None:
    from sglat.bitstream.motion_table import read_table, save_table

    with _opened(file) as stream:
        motion_table = read_table(stream)
    save_table(motion_table, target, is_forced=is_forced)
    say(f"{len(motion_table.motion.values)} frames")


def printable(text: object) -> str:
    """Return text from a file with control characters escaped."""
    shown = str(text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def table(record: dict[str, Any]) -> str:
    """Return the figures for people."""
    rows = [
        ("format", f"{record['version']}, {record['file_bytes']} bytes"),
        ("bundle", f"{record['bundle']} ({record['decoder_id'][:16]}), {record['resolution']} px"),
        ("encoder", record["encoder"] or "-"),
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
    rows += [(f"  {key}", value) for key, value in record["metadata"].items()]
    share = 100 * record["container_bytes"] / max(1, record["file_bytes"])
    rows.append(("container", f"{record['container_bytes']} bytes ({share:.2f} %)"))
    if record["unknown_chunks"]:
        rows.append(("unknown", ", ".join(record["unknown_chunks"])))
    rows.append(("complete", "yes" if record["is_complete"] else "no"))
    return "\n".join(f"{printable(name):<10} {printable(value)}" for name, value in rows)


def _identity_rows(identity: dict[str, Any]) -> list[tuple[str, str]]:
    reference = identity["reference"]
    if reference:
        return [("identity", f"in another file, {reference['sha256'][:16]} {reference['hint']}")]
    if not identity["layers"]:
        return []
    rows = [("identity", f"{identity['bytes']} bytes, {identity['sha256'][:16]}")]
    for layer in identity["layers"]:
        size = f"{layer['bytes']} bytes, {layer['integers']} integers"
        rows.append((f"  layer {layer['number']}", f"{layer['kind']}, {size}"))
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
