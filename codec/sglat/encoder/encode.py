"""The encoding pipeline: track, align, invert, choose, tune, solve, quantize, write, check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.records import Identity, IdentityReference, Provenance
from sglat.bundles.bundle import Bundle
from sglat.encoder.align import Crops
from sglat.encoder.analysis import analyse, begin, change_notes, clip_of, read_known
from sglat.encoder.causal import CausalConfig
from sglat.encoder.choose_frames import similarity_plot
from sglat.encoder.config import EncodeConfig, check_choices, polish_of
from sglat.encoder.crops import find_plate
from sglat.encoder.detail import face_side
from sglat.encoder.face_sheet import write_face_sheet
from sglat.encoder.paper_solver import solve_by_paper
from sglat.encoder.people import People, PeopleConfig
from sglat.encoder.quantize import QuantizeConfig, SolvedMotion
from sglat.encoder.selfcheck import SelfCheck, check_file
from sglat.encoder.solve_motion import (
    KNOWN_CLIP,
    OWN_CLIP,
    FastConfig,
    solve_motion,
)
from sglat.encoder.stages import Made, Progress, Runner, Stage
from sglat.encoder.stream import StreamConfig
from sglat.encoder.track import Track
from sglat.encoder.workfile import check_apart, default_workfile, remove_work
from sglat.encoder.write import Contents, check_consent, write_file
from sglat.errors import FaceError, MediaError
from sglat.files import check_input, output_lock, refuse_existing, write_atomically
from sglat.marks.provenance import known_origin, source_marks
from sglat.media.reader import Clip
from sglat.networks.devices import full_precision
from sglat.version import __version__


@dataclass(frozen=True, kw_only=True)
class EncodeResult:
    """Cost and result of one encoding."""

    path: Path
    """The `.sglat` file."""
    frames: int
    """Of the clip."""
    seconds: float
    """Length of the clip."""
    bytes_by_stream: dict[str, int]
    """Bytes of identity, motion, placement, audio, container and all."""
    stage_seconds: dict[str, float]
    """Wall time by phase."""
    id_frame: int | None
    """Number of the frame that gives the look; None for a known person."""
    messages: list[str]
    """What a user should know, one line each."""
    check: SelfCheck | None
    """Decoded against source; None without `self_check`."""
    settings: dict[str, str] = field(default_factory=dict)
    """Choices that are stored in the file."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values: bytes, kbit/s on first view and with a cached identity, timings."""
        sizes = self.bytes_by_stream
        motion = sizes["motion"] + sizes["placement"]
        rate = 8 / 1000 / max(self.seconds, 1e-9)
        return {
            "path": str(self.path),
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "bytes": sizes,
            "kbit_per_second_first_view": round((sizes["total"] - sizes["audio"]) * rate, 3),
            "kbit_per_second_motion": round(sizes["motion"] * rate, 3),
            "kbit_per_second_motion_and_placement": round(motion * rate, 3),
            "bits_per_frame": round(8 * sizes["motion"] / self.frames, 2),
            "stage_seconds": {k: round(v, 2) for k, v in self.stage_seconds.items()},
            "seconds_per_frame": round(sum(self.stage_seconds.values()) / self.frames, 4),
            "id_frame": self.id_frame,
            "messages": self.messages,
            "check": None if self.check is None else asdict(self.check),
            "settings": self.settings,
        }


def encode(
    source: Path,
    target: Path,
    config: EncodeConfig | None = None,
    *,
    progress: Progress | None = None,
    bundle: Bundle | None = None,
) -> EncodeResult:
    """Encode a talking-head video; arguments and errors as for `sglat.encode`.

    `bundle` takes the place of `config.bundle` and `config.device`, so that one that is loaded
    serves many encodings.

    After an interruption the same call continues from the work file and ends with the same bytes on
    a processor. Another device continues it too; it may give other bytes, and a GPU that sums
    gradients in any order may do so from run to run.
    """
    config = config or EncodeConfig()
    source, target = Path(source), Path(target)
    work = config.workfile or default_workfile(target)
    check_choices(config)
    check_files((source,), target, work, config)
    with output_lock(target):
        if not config.resume:
            remove_work(work)
        run = begin(source, work, config, progress, bundle=bundle)
        try:
            with full_precision(run.bundle.device):
                result = _encode(run, clip_of(source, config), target, config)
        except (FaceError, MediaError):  # the input is unusable: a retry would fail too
            if not config.keep_workfile:
                run.work.remove()
            raise
        if not config.keep_workfile:
            run.work.remove()
        return result


def check_files(sources: Sequence[Path], target: Path, work: Path, config: EncodeConfig) -> None:
    """Refuse inputs and outputs of an encoding that contradict each other, before any work.

    Raises:
        UsageError: see `refuse_existing`, `check_input`, `check_apart` and `check_consent`.
    """
    plot = config.similarity_plot
    inputs = (*sources, config.like, config.identity)
    for path in (config.like, config.identity):
        if path is not None:
            check_input(path)
    check_consent(config.consent)
    refuse_existing(target, force=config.force, inputs=inputs)
    if plot is not None:
        refuse_existing(plot, force=config.force, inputs=(*inputs, target))
    check_apart(work, (*inputs, target))


def list_faces(source: Path, sheet: Path, config: EncodeConfig) -> People:
    """Find everybody in a video and write a numbered contact sheet.

    Raises:
        FaceError: nobody. MediaError: unreadable input.
    """
    with TemporaryDirectory(prefix="sglat-faces-") as folder:
        run, clip = begin(source, Path(folder) / "work", config), clip_of(source, config)
        people = run(PeopleConfig(resolution=run.bundle.resolution), run.video(clip)).value
    if not people.faces:
        raise FaceError("no-face", f"expected a face, found none in {source}")
    write_face_sheet(clip, people, sheet)
    return people


@dataclass(frozen=True, kw_only=True)
class _Motion:
    """A person and their motion in a clip, ready to be written."""

    solved: Made[SolvedMotion]
    track: Track
    placement: NDArray[np.float64]
    identity: Identity
    resolution: int
    reference: IdentityReference | None
    """Of a known identity that was not refined."""
    id_frame: int | None
    notes: list[str]
    crops: Crops | None
    """None where they are not kept."""


def _encode(run: Runner, source: Clip, target: Path, config: EncodeConfig) -> EncodeResult:
    found = _in_one_pass(run, source, config) or _in_stages(run, source, config)
    packed = run(QuantizeConfig.of(config.quality, config.motion_bits), found.solved).value
    track = found.track
    settings = _settings(config) | {"quality": str(packed.quality)}
    if found.resolution > run.bundle.resolution:
        settings["face_pixels"] = str(round(face_side(found.placement)))
    with run.clock("pack"):
        consent, origin = known_origin(config.identity)
        contents = Contents(
            bundle=run.bundle.at(found.resolution), identity=found.identity, motion=packed.values,
            reference=None if config.embed else found.reference, steps=packed.steps,
            placement=found.placement, track=track, settings=settings,
            plate=find_plate(source, found.placement) if config.plate else None,
            provenance=Provenance(
                generated_by=f"sglat {__version__}", consent=config.consent or consent,
                source_sha256=bytes.fromhex(run.work.source.split(":")[0]),
                extra=source_marks(source.path) | origin,
            ),
        )  # fmt: skip
        written = write_file(source, target, contents, audio=config.audio, force=config.force)
    check = None
    if config.is_checked and found.crops is not None:
        with run.clock("check"):
            tell, other = run.teller("check"), config.identity
            check = check_file(
                target, found.crops, track, run.bundle, identity_file=other, progress=tell
            )
    seconds = float((track.pts[-1] - track.pts[0]) * track.time_base)
    return EncodeResult(
        path=target, frames=len(track), seconds=seconds + float(1 / track.frame_rate),
        bytes_by_stream=written.bytes_by_stream, stage_seconds=run.seconds,
        id_frame=found.id_frame,
        messages=[*written.notes, *found.notes, *(check.warnings if check else [])],
        check=check, settings=settings,
    )  # fmt: skip


def _in_stages(run: Runner, source: Clip, config: EncodeConfig) -> _Motion:
    """Tune or read the person and solve the motion stage by stage."""
    found = analyse(run, source, config)
    if config.solver == "paper":
        solved = solve_by_paper(run, found.person, found.problem)
    else:
        sweep = OWN_CLIP if found.known is None else KNOWN_CLIP
        solved = solve_motion(run, found.person, found.problem, _polish(config), sweep=sweep)
    if config.similarity_plot is not None and found.inverted.value is not None:
        plot = similarity_plot(found.tracked.value, found.inverted.value, found.selected.value)
        write_atomically(config.similarity_plot, plot)
    with run.clock("check"):
        changes = change_notes(run, found, torch.from_numpy(solved.value.motion), config)
    track, aligned = found.tracked.value, found.aligned.value
    return _Motion(
        solved=solved, track=track, placement=aligned.placement, identity=found.identity,
        resolution=found.resolution, reference=found.reference,
        id_frame=found.chosen.value[0] if found.known is None else None,
        notes=[*found.notes, *changes, *track.messages(), *found.visible.value.messages()],
        crops=aligned.crops,
    )  # fmt: skip


def _in_one_pass(run: Runner, source: Clip, config: EncodeConfig) -> _Motion | None:
    """Follow a known person frame by frame; None where the preset or an option needs stages."""
    is_live = config.preset == "live" and config.identity is not None and not config.adapt
    if not is_live or config.like is not None or not run.bundle.has("estimator"):
        return None
    known = read_known(run, config)
    causal = CausalConfig(face=None if config.face == 1 else config.face)
    made = run(StreamConfig(causal=causal), run.video(source), known)
    found, person = made.value, known.value
    return _Motion(
        solved=Made(value=found.solved, key=made.key), track=found.track,
        placement=found.placement, identity=person.whole, resolution=person.resolution,
        reference=person.reference, id_frame=None, crops=None,
        notes=[*found.notes, *found.track.messages()],
    )  # fmt: skip


def _polish(config: EncodeConfig) -> Stage[Tensor] | None:
    """Return what follows the sweep."""
    polish = polish_of(config)
    return None if polish is None else FastConfig(solver=polish)


def _settings(config: EncodeConfig) -> dict[str, str]:
    names: tuple[str, ...] = ("identity_bytes", "solver", "target", "tuning", "preset", "seed")
    if config.identity is not None:
        names = ("solver", "preset", "seed")
    found = {name: str(getattr(config, name)) for name in names}
    return found | {"target": config.matched} if "target" in found else found
