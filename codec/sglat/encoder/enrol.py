"""Enrolling: clips and pictures of one person become an identity that later encodes refer to.

The file holds the identity and, as frames, the typical motions of the person, so that it decodes to
a row of their faces and tells an encoder where Jacobians are worth taking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import av
import numpy as np
import torch
from numpy.typing import NDArray

from sglat.bitstream.constants import FIRST_VERSION, UPPER_VERSION
from sglat.bitstream.identity import needed_version
from sglat.bitstream.motion_coder import fit_model, quantize
from sglat.bitstream.records import Header, Motion, Provenance
from sglat.bitstream.writer import open_writer
from sglat.encoder.analysis import Analysis, analyse, begin, clip_of
from sglat.encoder.choose_frames import spread_frames
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import check_files
from sglat.encoder.jacobians import take_jacobians
from sglat.encoder.known import DISTANCE_SETTING, TYPICAL, picture_distance
from sglat.encoder.losses import PixelResidual
from sglat.encoder.quantize import QuantizeConfig, motion_steps
from sglat.encoder.solving_side import tangents_at_once
from sglat.encoder.stages import Progress, Runner
from sglat.encoder.start_motion import comparable
from sglat.encoder.track import Track
from sglat.encoder.workfile import default_workfile, remove_work
from sglat.errors import FaceError, MediaError, UsageError
from sglat.files import check_input, hash_file, output_lock
from sglat.marks.provenance import source_marks
from sglat.media.reader import VideoReader
from sglat.networks.devices import full_precision
from sglat.version import __version__

JOINED_RATE: Final = 25
"""Frames a second of several inputs joined."""


FEW_FRAMES: Final = (
    "one picture shows one expression: the mouth's inside, closed eyes and turns are guesses; a "
    "clip of ten seconds with speech and turns is better"
)


@dataclass(frozen=True, kw_only=True)
class EnrolResult:
    """Cost and result of enrolling."""

    path: Path
    """The `.sglat` file."""
    frames: int
    """Of all inputs."""
    bytes: int
    """Of the file."""
    resolution: int
    """Of the person's pictures."""
    stage_seconds: dict[str, float]
    """Wall time by phase."""
    messages: list[str]
    """What a user should know, one line each."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "path": str(self.path),
            "frames": self.frames,
            "bytes": self.bytes,
            "resolution": self.resolution,
            "stage_seconds": {k: round(v, 2) for k, v in self.stage_seconds.items()},
            "messages": self.messages,
        }


def enrol(
    sources: Sequence[Path],
    target: Path,
    config: EncodeConfig | None = None,
    *,
    progress: Progress | None = None,
) -> EnrolResult:
    """Tune a person on clips and pictures and write the identity; no motion of theirs is encoded.

    After an interruption the same call continues from the work file.

    Args:
        sources: videos and pictures of one person, in any mixture.
        target: the file to write.
        config: options of encoding; those of motion and sound have no effect.
        progress: called with phase, units done and units in all.

    Raises:
        FaceError: an input without the face, or with another person's. MediaError: unreadable.
        UsageError: the output exists and `force` is not set, or no input.
    """
    config, sources, target = (
        config or EncodeConfig(),
        [Path(path) for path in sources],
        Path(target),
    )
    if not sources:
        raise UsageError("no-input", "expected a clip or a picture of the person")
    if config.identity is not None:
        raise UsageError("bad-options", "expected no known identity: enrolling makes one")
    work = config.workfile or default_workfile(target)
    check_files(sources, target, work, config)
    for source in sources:
        check_input(source)
    with output_lock(target), ExitStack() as stack:
        if not config.resume:
            remove_work(work)
        source, spans = sources[0], [(sources[0], 0, 1 << 62)]
        if len(sources) > 1:
            folder = stack.enter_context(TemporaryDirectory(prefix="sglat-enrol-"))
            source = Path(folder) / "joined.mkv"
            spans = join_inputs(sources, source)
        run = begin(source, work, config, progress)
        try:
            with full_precision(run.bundle.device):
                found = analyse(run, clip_of(source, config), config)
                check_spans(found.tracked.value, spans)
                size = _write(run, found, sources, target, config)
        except (FaceError, MediaError) as error:
            names = ", ".join(str(path) for path in sources)
            error.message = error.message.replace(str(source), names)  # where they are joined
            if not config.keep_workfile:
                run.work.remove()
            raise
        if not config.keep_workfile:
            run.work.remove()
    track = found.tracked.value
    notes = [FEW_FRAMES] if int((~track.held).sum()) == 1 else []
    return EnrolResult(
        path=target, frames=len(track), bytes=size, resolution=found.resolution,
        stage_seconds=run.seconds,
        messages=[*notes, *track.messages(), *found.visible.value.messages()],
    )  # fmt: skip


def join_inputs(sources: Sequence[Path], target: Path) -> list[tuple[Path, int, int]]:
    """Write the frames of several inputs into one lossless video, each in the top left of a frame
    that holds the largest; return first and end frame of each.

    Raises:
        MediaError: an unreadable input.
    """
    sizes = []
    for source in sources:
        with VideoReader(source) as reader:
            sizes.append((reader.info.width, reader.info.height))
    width, height = (max(side) + max(side) % 2 for side in zip(*sizes, strict=True))
    spans = []
    # bitexact: no random numbers in the container, so that the same inputs continue the same work
    with av.open(str(target), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=JOINED_RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        count = 0
        for source in sources:
            first = count
            for picture in _pictures(source):
                canvas = np.zeros((height, width, 3), np.uint8)
                canvas[: picture.shape[0], : picture.shape[1]] = picture
                frame = av.VideoFrame.from_ndarray(canvas, format="rgb24")
                frame.pts, frame.time_base = count, Fraction(1, JOINED_RATE)
                container.mux(stream.encode(frame))
                count += 1
            spans.append((source, first, count))
        container.mux(stream.encode(None))
    return spans


def _pictures(source: Path) -> Iterator[NDArray[np.uint8]]:
    with VideoReader(source) as reader:
        for frame in reader:
            yield frame.picture


def check_spans(track: Track, spans: Sequence[tuple[Path, int, int]]) -> None:
    """Refuse inputs in none of whose frames the person was found.

    Raises:
        FaceError: `other-person`, names the input.
    """
    for path, first, end in spans:
        if bool(track.held[first:end].all()):
            raise FaceError(
                "other-person",
                f"expected the same person in all inputs, {path} shows no face or another one's; "
                "leave it out, or enrol it alone",
            )


def _write(
    run: Runner, found: Analysis, sources: Sequence[Path], target: Path, config: EncodeConfig
) -> int:
    """Write identity and typical motions; return the file's size in bytes."""
    person, tuned = found.person.value, found.problem.value.tuned
    chosen = found.chosen.value
    distance = picture_distance(run.bundle, person, found.problem.value, chosen, tuned)
    usable = torch.ones(len(tuned), dtype=torch.bool)
    motion = tuned[spread_frames(comparable(tuned).cpu(), TYPICAL, 0, usable)]
    weights = torch.ones(1, 1, run.bundle.resolution, run.bundle.resolution)
    pixels = PixelResidual(weights.to(motion.device), (1,))
    (jacobians,) = take_jacobians(
        person.render_fast, person.person.neutral[None], (pixels,),
        tangents=tangents_at_once(run.bundle.resolution),
    )  # fmt: skip
    effect = jacobians.picture_effect.cpu().numpy()
    steps = motion_steps(effect, QuantizeConfig())
    values = quantize(motion.cpu().numpy(), steps)
    bundle, track = run.bundle.at(found.resolution), found.tracked.value
    header = Header(
        decoder_id=bundle.decoder_id,
        bundle=bundle.name,
        resolution=bundle.resolution,
        num_ws=bundle.num_ws,
        w_dim=bundle.style_dim,
        motion_steps=steps,
        upper_id=bundle.upper_id,
        read_version=max(
            needed_version(found.identity),
            FIRST_VERSION if bundle.upper_id is None else UPPER_VERSION,
        ),
        model=fit_model(values),
        time_base=Fraction(1, 2),
        frame_ticks=1,
        start_ticks=0,
        frame_count=len(values),
        source_size=(track.width, track.height),
        placement_steps=None,
        encoder=f"sglat {__version__}",
        settings={
            "enrolled": f"{len(track)} frames of {len(sources)} inputs",
            "identity_bytes": str(config.identity_bytes),
            "preset": config.preset,
            DISTANCE_SETTING: f"{distance:.4f}",
        },
    )
    with open_writer(target, header, force=config.force) as writer:
        writer.put_identity(found.identity)
        writer.put_provenance(
            Provenance(
                generated_by=f"sglat {__version__}",
                consent=config.consent,
                source_sha256=bytes.fromhex(hash_file(sources[0])),
                extra=source_marks(sources[0]),
            )
        )
        flags = np.zeros(len(values), np.uint8)
        writer.put_motion(Motion(values=values, steps=steps, pts=None, flags=flags))
    return target.stat().st_size
