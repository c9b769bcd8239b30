"""The track of a face in a video that a decoded face is pasted into."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sglat.bundles.bundle import Bundle
from sglat.decoder.paint import FaceTrack
from sglat.encoder.align import AlignConfig
from sglat.encoder.people import PeopleConfig
from sglat.encoder.stages import Progress, Runner
from sglat.encoder.track import TrackConfig
from sglat.encoder.workfile import WorkFile


def place_face(path: Path, bundle: Bundle, *, progress: Progress | None = None) -> FaceTrack:
    """Follow the face of a video as the encoder does, with its first two stages.

    Args:
        path: video or picture.
        bundle: face networks.
        progress: called with phase, units done and units in all.

    Raises:
        BundleError: no face networks.
        FaceError: no face.
        MediaError: unreadable input.
    """
    with TemporaryDirectory(prefix="sglat-track-") as folder:
        run = Runner(bundle, WorkFile(Path(folder) / "work", source=""), progress)
        video = run.video(path)
        people = run(PeopleConfig(resolution=bundle.resolution), video)
        tracked = run(TrackConfig(), video, people)
        placement = run(AlignConfig(resolution=bundle.resolution), video, tracked).value.placement
    track = tracked.value
    return FaceTrack(
        seconds=(track.pts * float(track.time_base)).astype(np.float64),
        placement=placement,
        is_held=track.held,
        is_cut=track.cut,
        size=(track.width, track.height),
    )
