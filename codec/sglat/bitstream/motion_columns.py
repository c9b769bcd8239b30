"""Columns of motion by name from a table of any program."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.motion_table import (
    FRAME_NAMES,
    PLACEMENT_NAMES,
    channel_of,
    load_h5py,
    table_error,
)
from sglat.bitstream.records import MOTION_CHANNELS
from sglat.errors import SglatError
from sglat.files import check_input

Float64: TypeAlias = NDArray[np.float64]


def read_columns(path: Path, own_names: Sequence[str] = ()) -> Float64:
    """Return channels by name from a CSV or HDF5 file of any program.

    A CSV file has one row of names, perhaps after lines of comment, then one row a frame; an HDF5
    file has `names` and `values`, as `save_table` writes them. Columns of frame number, time, flags
    and placement are left out; those of controls may be in any order and few.

    Args:
        path: the file.
        own_names: of the controls in the bundle.

    Returns:
        Degrees and controls, `[T, 34]`, NaN where there is no column.

    Raises:
        UsageError: no such file, `unknown-control`. FormatError: not finite numbers.
    """
    check_input(path)
    try:
        if path.suffix.lower() == ".csv":
            return _named(*_csv_rows(path), own_names)
        return _named(*_hdf5_rows(path), own_names)
    except SglatError as error:
        error.path = error.path or path.name
        raise


def _named(names: list[str], rows: Sequence[Any] | Float64, own_names: Sequence[str]) -> Float64:
    out = np.full((len(rows), MOTION_CHANNELS), np.nan)
    done: set[int] = set()
    for at, name in enumerate(names):
        if name.strip().lower() in (*FRAME_NAMES, *PLACEMENT_NAMES, "time", ""):
            continue
        channel = channel_of(name, own_names)
        if channel in done:
            raise table_error(f"expected each column once, found {name!r:.40} twice")
        done.add(channel)
        for number, row in enumerate(rows):
            try:
                out[number, channel] = value = float(row[at])
            except (ValueError, IndexError):
                found = row[at] if at < len(row) else "no column"
                raise table_error(
                    f"{name}, row {number}: expected a number, found {found!r:.40}"
                ) from None
            if not abs(value) < float("inf"):
                raise table_error(f"{name}, row {number}: expected a finite number, found {value}")
    return out


def _csv_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [row for row in csv.reader(file) if row and not row[0].startswith("#")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise table_error(f"expected text with commas, found {error}") from error
    if len(lines) < 2:
        raise table_error("expected a row of names and rows of numbers, found none")
    return lines[0], lines[1:]


def _hdf5_rows(path: Path) -> tuple[list[str], Float64]:
    h5py = load_h5py()
    try:
        with h5py.File(path, "r") as file:
            names = [name.decode() for name in np.asarray(file["names"]).tolist()]
            values = np.asarray(file["values"], dtype=np.float64)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise table_error(f"expected datasets names and values, found {error}") from error
    if values.ndim != 2 or values.shape[1] != len(names):
        raise table_error(f"expected values [T, {len(names)}] for its names, found {values.shape}")
    return names, values
