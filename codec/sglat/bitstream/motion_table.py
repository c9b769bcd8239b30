"""Motion as CSV and HDF5, so that people can plot and edit it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import numpy as np

from sglat.bitstream.channels import CONTROL_NAMES, find_channels
from sglat.bitstream.edits import LOOK_CHUNKS, Source
from sglat.bitstream.groups import join_motion
from sglat.bitstream.motion_coder import fit_model, quantize
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import (
    MOTION_CHANNELS,
    PLACEMENT_CHANNELS,
    Float32,
    Int64,
    Motion,
    Placement,
    Provenance,
    UInt8,
)
from sglat.bitstream.writer import Writer
from sglat.errors import FormatError, MissingExtraError, UsageError
from sglat.files import atomic_file, check_input

TABLE_SUFFIXES: Final = (".csv", ".h5", ".hdf5")
MOTION_NAMES: Final = ("yaw_degrees", "pitch_degrees", *CONTROL_NAMES)
"""Columns as written; `find_channels` reads all its names of single channels."""
FRAME_NAMES: Final = ("frame", "pts", "seconds", "flags")
PLACEMENT_NAMES: Final = ("centre_x", "centre_y", "size", "roll_degrees")
TABLE_NOTE: Final = "motion from a table of numbers"
_MARK: Final = "# sglat-motion"


@dataclass(frozen=True, kw_only=True)
class MotionTable:
    """A whole track with what it takes to write it back."""

    motion: Motion
    placement: Placement | None
    time_base: Fraction
    frame_ticks: int | None
    start_ticks: int
    pts: Int64
    """Time stamps in ticks, `[T]`."""


def save_table(table: MotionTable, path: Path, *, force: bool = False) -> None:
    """Write `.csv` or `.h5`, by the name's ending.

    Raises:
        UsageError: another ending, or the file exists.
        MissingExtraError: h5py is needed.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        text = io.StringIO(newline="")
        write_csv(table, text)
        data = text.getvalue().encode()
    elif suffix in (".h5", ".hdf5"):
        data = _pack_hdf5(table)
    else:
        raise UsageError("bad-suffix", f"expected a name ending in .csv or .h5, found {path.name}")
    with atomic_file(path, force=force) as file:
        file.write(data)


def load_table(path: Path) -> MotionTable:
    """Read what `save_table` wrote; edited values are quantized again.

    Raises:
        UsageError: another ending, or no such file.
    """
    check_input(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with path.open(newline="") as file:
            return read_csv(file)
    if suffix in (".h5", ".hdf5"):
        return _read_hdf5(path)
    raise UsageError("bad-suffix", f"expected a name ending in .csv or .h5, found {path.name}")


def read_table(file: BinaryIO) -> MotionTable:
    """Return the whole track of an `.sglat` file.

    Raises:
        UsageError: the file has no motion.
    """
    reader = Reader(file)
    groups = reader.read_all()
    if not groups:
        raise UsageError("no-motion", "expected motion to export, found none")
    tracks = [group.placement for group in groups if group.placement is not None]
    placement = None
    if len(tracks) == len(groups):  # a track with holes would not fit the table
        values = np.concatenate([track.values for track in tracks])
        placement = replace(tracks[0], values=values)
    motion = join_motion([group.motion for group in groups], reader.header)
    header = reader.header
    return MotionTable(
        motion=motion, placement=placement, time_base=header.time_base,
        frame_ticks=header.frame_ticks, start_ticks=header.start_ticks, pts=motion.stamps(header),
    )  # fmt: skip


def file_of_table(table: MotionTable, template: BinaryIO, out: BinaryIO) -> None:
    """Write an `.sglat` file with the motion of a table and the look of a template file."""
    source = Source(template)
    size = source.header.source_size
    placement = table.placement if size is not None else None
    header = replace(
        source.header,
        motion_steps=table.motion.steps,
        time_base=table.time_base,
        frame_ticks=table.frame_ticks,
        start_ticks=table.start_ticks,
        frame_count=len(table.motion.values),
        placement_steps=None if placement is None else placement.steps,
        model=fit_model(table.motion.values),
    )
    writer = Writer(out, header)
    for chunk in source.preamble:
        if chunk.type == "PROV":  # speaks of the template's own motion
            record = Provenance(generated_by=source.header.encoder or "sglat", note=TABLE_NOTE)
            writer.put_provenance(record)
        elif chunk.type in (*LOOK_CHUNKS, "META"):
            writer.put_chunk(chunk)
    writer.put_motion(table.motion, placement)
    writer.close()


def write_csv(table: MotionTable, file: TextIO) -> None:
    """Write one row a frame; values in degrees, styles and pixels, exact to the last bit."""
    rate = (table.time_base, table.frame_ticks or 0, table.start_ticks)
    file.write(f"{_MARK} time_base={rate[0]} frame_ticks={rate[1]} start_ticks={rate[2]}\n")
    file.write("# steps " + " ".join(map(repr, table.motion.steps.tolist())) + "\n")
    columns = [table.motion.dequantize()]
    names = [*FRAME_NAMES, *MOTION_NAMES]
    if table.placement is not None:
        file.write("# placement " + " ".join(map(repr, table.placement.steps.tolist())) + "\n")
        columns.append(table.placement.dequantize())
        names += PLACEMENT_NAMES
    pts = table.pts.tolist()
    flags = _flags(table).tolist()
    out = csv.writer(file, lineterminator="\n")
    out.writerow(names)
    for frame, row in enumerate(np.concatenate(columns, axis=1)):
        seconds = f"{float(pts[frame] * table.time_base):.6f}"
        numbers = [np.format_float_positional(value, unique=True, trim="-") for value in row]
        number = frame + table.motion.first_frame
        out.writerow([number, pts[frame], seconds, flags[frame], *numbers])


def _flags(table: MotionTable) -> UInt8:
    flags = table.motion.flags
    return np.zeros(len(table.motion.values), dtype=np.uint8) if flags is None else flags


def table_error(message: str) -> FormatError:
    """Return the error of a damaged table."""
    return FormatError("bad-field", f"motion table: {message}")


def _fields(line: str, mark: str) -> list[str]:
    words = line.split()
    if not line.startswith(mark):
        raise table_error(f"expected a line {mark!r}, found {line[:40]!r}")
    return words[len(mark.split()) :]


def read_csv(file: TextIO) -> MotionTable:
    """Read what `write_csv` wrote."""
    try:
        rate = dict(word.split("=", 1) for word in _fields(file.readline(), _MARK))
        time_base = Fraction(rate["time_base"])
        ticks, start = int(rate["frame_ticks"]), int(rate["start_ticks"])
        steps = np.array(_fields(file.readline(), "# steps"), dtype=np.float32)
        line = file.readline()
        placement_steps = None
        if line.startswith("#"):
            placement_steps = np.array(_fields(line, "# placement"), dtype=np.float32)
            line = file.readline()
        names = line.strip().split(",")
        order = _order(names, has_placement=placement_steps is not None)
        rows = list(csv.reader(file))
        if any(len(row) != len(names) for row in rows):
            raise table_error(f"expected {len(names)} columns in each row, found others")
        rows = [[row[at] for at in order] for row in rows]
        pts = np.array([int(row[1]) for row in rows], dtype=np.int64)
        flags = np.array([int(row[3]) for row in rows], dtype=np.uint8)
        values = np.array([row[4:] for row in rows], dtype=np.float32).reshape(len(rows), -1)
    except (ValueError, KeyError, OverflowError, ZeroDivisionError, csv.Error) as error:
        raise table_error(f"expected numbers, found {error}") from error
    return _table(time_base, ticks, start, steps, placement_steps, pts, flags, values)


def _order(names: list[str], *, has_placement: bool) -> list[int]:
    """Return where the columns of frame, channels and placement stand, in this order."""
    wanted: list[str | int] = [*FRAME_NAMES, *range(MOTION_CHANNELS)]
    wanted += PLACEMENT_NAMES if has_placement else ()
    known = {*FRAME_NAMES, *PLACEMENT_NAMES}
    found: dict[str | int, int] = {}
    for at, name in enumerate(names):
        try:
            key = name if name in known else channel_of(name)
        except UsageError as error:
            raise table_error(error.message) from error
        if key in found:
            raise table_error(f"expected each column once, found {name!r:.40} twice")
        found[key] = at
    missing = [c if isinstance(c, str) else MOTION_NAMES[c] for c in wanted if c not in found]
    if missing or len(found) > len(wanted):
        more = ", ".join(missing[:4]) or "no placement without its steps"
        raise table_error(f"expected {len(wanted)} columns, found {len(names)}; missing: {more}")
    return [found[key] for key in wanted]


def channel_of(name: str, own_names: Sequence[str] = ()) -> int:
    """Return the channel of a column."""
    channels = find_channels(name, own_names)
    if len(channels) != 1:
        raise UsageError("unknown-control", f"expected a single control, found column {name!r:.40}")
    return channels[0]


def _table(
    time_base: Fraction,
    ticks: int,
    start: int,
    steps: Float32,
    placement_steps: Float32 | None,
    pts: Int64,
    flags: UInt8,
    values: Float32,
) -> MotionTable:
    if not len(values) or steps.shape != (MOTION_CHANNELS,) or not (steps > 0).all():
        raise table_error("expected frames and 34 positive steps, found others")
    integers = quantize(values[:, :MOTION_CHANNELS], steps)
    motion = Motion(
        values=integers,
        steps=steps,
        pts=None if ticks else pts,
        flags=flags if flags.any() else None,
    )
    placement = None
    if placement_steps is not None:
        if placement_steps.shape != (PLACEMENT_CHANNELS,) or not (placement_steps > 0).all():
            raise table_error("expected 4 positive placement steps, found others")
        track = quantize(values[:, MOTION_CHANNELS:], placement_steps)
        placement = Placement(values=track, steps=placement_steps)
    return MotionTable(
        motion=motion,
        placement=placement,
        time_base=time_base,
        frame_ticks=ticks or None,
        start_ticks=start if ticks else 0,
        pts=pts,
    )


def load_h5py() -> Any:
    """Return the library that reads HDF5."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", extra="encode") from error
    return h5py


def _pack_hdf5(table: MotionTable) -> bytes:
    h5py = load_h5py()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["sglat_motion"] = 1
        file.attrs["time_base"] = str(table.time_base)
        file.attrs["frame_ticks"] = table.frame_ticks or 0
        file.attrs["start_ticks"] = table.start_ticks
        file.create_dataset("names", data=[name.encode() for name in MOTION_NAMES])
        file.create_dataset("steps", data=table.motion.steps)
        file.create_dataset("values", data=table.motion.dequantize(), compression="gzip")
        file.create_dataset("pts", data=table.pts, compression="gzip")
        file.create_dataset("flags", data=_flags(table), compression="gzip")
        if table.placement is not None:
            file.create_dataset("placement_steps", data=table.placement.steps)
            values = table.placement.dequantize()
            file.create_dataset("placement", data=values, compression="gzip")
    return buffer.getvalue()


def _read_hdf5(path: Path) -> MotionTable:
    h5py = load_h5py()
    try:
        with h5py.File(path, "r") as file:
            values = np.asarray(file["values"], dtype=np.float32)
            if "names" in file:
                names = [name.decode() for name in np.asarray(file["names"]).tolist()]
                order = _order([*FRAME_NAMES, *names], has_placement=False)[len(FRAME_NAMES) :]
                values = values[:, [at - len(FRAME_NAMES) for at in order]]
            placement_steps = None
            if "placement" in file:
                placement_steps = np.asarray(file["placement_steps"], dtype=np.float32)
                track = np.asarray(file["placement"], dtype=np.float32)
                values = np.concatenate([values, track], axis=1)
            return _table(
                Fraction(str(file.attrs["time_base"])),
                int(file.attrs["frame_ticks"]),
                int(file.attrs["start_ticks"]),
                np.asarray(file["steps"], dtype=np.float32),
                placement_steps,
                np.asarray(file["pts"], dtype=np.int64),
                np.asarray(file["flags"], dtype=np.uint8),
                values,
            )
    except (
        OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError,
        ZeroDivisionError,
    ) as error:  # fmt: skip
        raise table_error(f"expected the datasets of an exported motion, found {error}") from error
