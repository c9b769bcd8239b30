"""Edits by name with their signature: what `sgl-edit` and `sglat.edit` do to an open file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO

from sglat.bitstream.edit_file import EditReport, edit_motion
from sglat.bitstream.edit_grammar import Edit
from sglat.bitstream.edits import Source
from sglat.bitstream.records import Header
from sglat.errors import UsageError
from sglat.marks.provenance import sign

if TYPE_CHECKING:
    from sglat.marks.keys import Signer


def edit_stream(
    file: BinaryIO,
    out: BinaryIO,
    edits: Sequence[Edit],
    *,
    own_names: Callable[[Header], Sequence[str]],
    signer: Signer | None = None,
) -> EditReport:
    """Write a file with edited motion, signed if there is a signer.

    Args:
        file: seekable.
        out: open for writing.
        edits: in their order.
        own_names: gives the names of a bundle's controls, asked where standard names do not do.
        signer: who signs the record of origin; None: nobody.

    Raises:
        UsageError: no edit, or one that does not fit the file; as `edit_motion`.
    """
    if not edits:
        raise UsageError("bad-edit", "expected at least one edit, such as set, gain or neutral")
    with TemporaryFile() as between:
        edited = out if signer is None else between
        try:
            report = edit_motion(file, edited, edits)
        except UsageError as error:
            if error.code != "unknown-control":
                raise
            file.seek(0)
            report = edit_motion(file, edited, edits, own_names=own_names(Source(file).header))
        if signer is not None:
            between.seek(0)
            sign(between, out, signer)
    return report
