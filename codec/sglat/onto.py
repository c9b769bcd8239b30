"""Where a face is pasted into another video: by the file's own placement, or by a face found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from sglat.errors import BundleError, FaceError, MissingExtraError, UsageError
from sglat.files import hash_file

if TYPE_CHECKING:
    from sglat.decoder.decode import Decoder
    from sglat.decoder.paint import FaceTrack
    from sglat.media.reader import Clip

LEAD_SECONDS: Final = Fraction(1, 4)
"""Of a video before the first frame wanted, so that the frame on screen then is searched too."""
SAME_FACE: Final = 0.02
"""Distance of two tracks in face sizes up to which they follow the same face. A clip tracked again
lies within 0.001; two people framed alike by their cameras were 0.06 and 0.09 apart."""


def choose_track(
    decoder: Decoder,
    source: Path,
    onto: Path,
    wanted: str = "auto",
    *,
    face: int | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> tuple[FaceTrack | None, list[str]]:
    """Return where a face is pasted into a video or picture, and what a user should know of it.

    `auto` takes the placement of the file if its motion comes from this very video, or lies where a
    face is found in it, and else the face that is found. Without face networks, the packages of the
    encoder, or a face in the video it is the file's placement. Only the range that is decoded is
    searched.

    Args:
        decoder: of the file.
        source: the file; `-` for standard input.
        onto: video or picture.
        wanted: `auto`; `own` for the placement of the file; or a `.sglat` file made from `onto`.
        face: follow this face of `onto`, 1 the largest over the range; None: as above.
        progress: called with stage, units done and units in all.

    Returns:
        The track, None for the file's placement; notes, one line each.

    Raises:
        FaceError: no face of this number.
        FormatError, UsageError: the `.sglat` file to take the placement of; `face` without `auto`.
    """
    from sglat.decoder.paint import agreement, read_track

    if face is not None and wanted != "auto":
        raise UsageError("bad-options", "--track and --face contradict each other")
    if wanted not in ("auto", "own"):
        return read_track(Path(wanted)), []
    if wanted == "own" or (face is None and _is_made_from(decoder, onto)):
        return None, []
    missing: str
    try:
        from sglat.encoder.align import place_face

        clip = _searched(decoder, onto)
        found = place_face(clip, decoder.bundle, face=face or 1, progress=progress)
    except FaceError:
        if face is not None:
            raise
        missing = f"no face was found in {onto}"
    except (BundleError, MissingExtraError) as error:
        missing = f"the face in {onto} cannot be searched ({error.message})"
    else:
        if face is not None:
            return found, [f"--onto: placed where face {face} of {onto} is"]
        own = _own_track(decoder, source)
        if own is not None and agreement(own, found) < SAME_FACE:
            return None, []
        return found, [
            f"--onto: placed where the face of {onto} is; the motion is of another video"
        ]
    return None, [f"--onto: {missing}; {_stored_place(decoder, onto)}"]


def _searched(decoder: Decoder, onto: Path) -> Clip:
    """Return the part of a video that is on screen while a file is decoded; all of a picture."""
    from sglat.media.pictures import STILL_SUFFIXES
    from sglat.media.reader import Clip, VideoReader, exact_seconds

    whole, config = Clip(path=onto), decoder.config
    if onto.suffix.lower() in STILL_SUFFIXES:
        return whole
    start = max(Fraction(0), exact_seconds(config.start_seconds) - LEAD_SECONDS)
    end = None if config.end_seconds is None else exact_seconds(config.end_seconds)
    clip = replace(whole, start_seconds=start, end_seconds=end)
    try:
        VideoReader(clip).close()
    except UsageError:  # it ends before the range, and its last frame stays
        return whole
    return clip


def _is_made_from(decoder: Decoder, video: Path) -> bool:
    """Whether a file's motion is that of a whole video."""
    from sglat.media.reader import VideoReader

    provenance, frames = decoder.reader.provenance, decoder.header.frame_count
    driver = decoder.reader.motion_neutral
    is_swapped = driver is not None and not np.array_equal(driver, decoder.identity.neutral)
    if is_swapped or provenance is None:
        return False
    if provenance.source_sha256.hex() != hash_file(video):
        return False
    with VideoReader(video) as reader:
        return reader.info.frame_count in (0, frames)


def _own_track(decoder: Decoder, source: Path) -> FaceTrack | None:
    from sglat.decoder.paint import read_track

    if str(source) == "-" or decoder.header.placement_steps is None:
        return None
    try:
        return read_track(source)
    except UsageError:  # parts of the file have no placement
        return None


def _stored_place(decoder: Decoder, onto: Path) -> str:
    """Return how the file's own placement is used."""
    from sglat.decoder.backdrop import VideoBackdrop, open_backdrop

    if decoder.header.placement_steps is None:
        raise UsageError(
            "no-placement", f"the file has no placement of its face; give --track {onto.stem}.sglat"
        )
    backdrop = open_backdrop(onto)
    if isinstance(backdrop, VideoBackdrop):
        backdrop.close()
    size, other = decoder.header.source_size or backdrop.size, backdrop.size
    sizes = "" if size == other else f" of {size[0]}x{size[1]}, scaled to {other[0]}x{other[1]}"
    return f"the face is pasted where it was in the motion's video{sizes}; or give --track"
