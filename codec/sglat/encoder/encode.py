"""The encoding pipeline: track, align, invert, select, refine, tune, pose, expression, pack."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import InitVar, asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.records import Provenance
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.encoder.align import Alignment, align
from sglat.encoder.background import find_plate
from sglat.encoder.choose_frames import compared_frames, look_and_motion, typical_frames
from sglat.encoder.invert import Inversion, InvertConfig, invert
from sglat.encoder.losses import LossConfig, TargetLoss
from sglat.encoder.manifold import Manifold
from sglat.encoder.person import TunedPerson, person_within
from sglat.encoder.quantize import PackConfig, pack_motion_within
from sglat.encoder.refine import RefineConfig, refine_latents
from sglat.encoder.registration import AlignConfig
from sglat.encoder.select import SelectConfig, Selection, select, similarity_plot
from sglat.encoder.selfcheck import SelfCheck, check_file
from sglat.encoder.solve_motion import FitConfig, fit_numbers
from sglat.encoder.start_motion import (
    CORRECTION_NOISE,
    corrected_numbers,
    crop_points,
    signature,
    start_numbers,
)
from sglat.encoder.track import Track, TrackConfig, track
from sglat.encoder.tune import TuneConfig, Tuned, Tuner, tune
from sglat.encoder.weight_deltas import DeltaConfig, delta_budget, ranks_within
from sglat.encoder.workfile import Stage, WorkFile
from sglat.encoder.write import Contents, write_file
from sglat.errors import FaceError, MediaError
from sglat.files import hash_file, refuse_existing
from sglat.networks.devices import choose_device, full_precision
from sglat.networks.face_regions import feature_weights
from sglat.version import __version__

STAGES = ("track", "align", "invert", "refine", "tune", "jacobian", "pose", "expression", "check")

Progress = Callable[[str, int, int], None]
"""Called with stage name, units done and units in all (0 when unknown)."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Everything a user may choose."""

    bundle: str = "mini"
    face: int = 1
    """1 is the largest face."""
    quality: int | None = None
    """0 to 100: quantizer of the motion. None: 62, or less where that takes more than 47 bits a
    frame."""
    motion_bits: float | None = None
    """Most bits a frame for the motion; the quality gives way where it would take more. None: no
    limit to a quality that was asked for."""
    identity_bytes: int = 64_000
    """Most bytes for the identity, all layers."""
    solver: Literal["fast", "paper"] = "fast"
    target: Literal["frame", "inverted"] = "frame"
    """What the numbers are fitted to: the camera frame, or the generator's rendering of its
    inversion."""
    tuning: Literal["manifold", "pivotal", "none"] = "manifold"
    tune_steps: int | None = None
    """None: the default of the tuning stage."""
    tune_frames: int | None = None
    """Frames that are tuned on; None: the default of the tuning stage."""
    plate: bool = False
    """Store a still background for full frames."""
    seed: int = 0
    workfile: Path | None = None
    """Folder for resuming; None puts it beside the output."""
    keep_workfile: bool = False
    device: str = "cpu"
    """As for decoding. Other devices than the processor round differently and give other bytes."""
    threads: int | None = None
    self_check: bool = True
    similarity_plot: Path | None = None
    """Write the identity similarity over time as SVG here."""
    consent: str = ""
    force: bool = False
    """Replace an existing output."""
    is_forced: InitVar[bool] = False
    """An older name of `force`."""

    def __post_init__(self, is_forced: bool) -> None:
        object.__setattr__(self, "force", self.force or is_forced)


@dataclass(frozen=True, kw_only=True)
class EncodeResult:
    """What one encoding cost and gave."""

    path: Path
    frames: int
    seconds: float
    """Length of the clip."""
    bytes_by_stream: dict[str, int]
    stage_seconds: dict[str, float]
    id_frame: int
    messages: list[str]
    check: SelfCheck | None
    settings: dict[str, str] = field(default_factory=dict)

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


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A clip as far as its tuned person."""

    tracked: Track
    aligned: Alignment
    points: NDArray[np.float32]
    """Landmarks in crop units, `[T, 478, 2]`."""
    start: Tensor
    """Where the numbers of all frames start, `[T, 34]`."""
    id_frame: int
    chosen: list[int]
    """Tuning frames; the first is the ID frame."""
    anchors: Tensor
    """Motion of the tuning frames, `[K, 34]`."""
    person: TunedPerson


def encode(
    source: Path,
    target: Path,
    config: EncodeConfig | None = None,
    *,
    progress: Progress | None = None,
) -> EncodeResult:
    """Encode a talking-head video.

    After an interruption the same call continues from the work file and ends with the same bytes on
    a processor. Another device continues it too; it may give other bytes, and a GPU that sums
    gradients in any order may do so from run to run.

    Args:
        source: any video PyAV reads, with one face or more.
        target: `.sglat` file to write.
        config: choices.
        progress: told of every stage.

    Raises:
        FaceError: no face. MediaError: unreadable input. UsageError: contradicting arguments,
            a device that this machine does not have.
        WorkFileError: the work file belongs to another input.
    """
    config = config or EncodeConfig()
    source, target = Path(source), Path(target)
    refuse_existing(target, force=config.force)
    device = choose_device(config.device)
    work = config.workfile or target.with_name(target.name + ".work")
    run = _begin(source, work, config, device, progress)
    try:
        with full_precision(run.bundle.device):
            result = run.encode(target)
    except (FaceError, MediaError):  # this input will not do another time either
        if not config.keep_workfile:
            run.work.remove()
        raise
    if not config.keep_workfile:
        run.work.remove()
    return result


def prepare(source: Path, work: Path, config: EncodeConfig) -> Prepared:
    """Go as far as the tuned person, what the numbers of a clip are solved against.

    Args:
        source: as for `encode`.
        work: work file, which is kept.
        config: choices.

    Raises:
        As `encode`.
    """
    run = _begin(Path(source), Path(work), config, choose_device(config.device), None)
    with full_precision(run.bundle.device):
        return run.prepare()


def _begin(
    source: Path, work: Path, config: EncodeConfig, device: torch.device, progress: Progress | None
) -> _Run:
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    bundle = load_bundle(config.bundle, device)
    return _Run(source, bundle, config, WorkFile(work, source=hash_file(source)), progress)


class _Run:
    """One encoding: what its stages share."""

    def __init__(
        self,
        source: Path,
        bundle: Bundle,
        config: EncodeConfig,
        work: WorkFile,
        progress: Progress | None,
    ) -> None:
        self.source, self.bundle, self.config, self.work = source, bundle, config, work
        self.faces = bundle.faces
        self.progress = progress
        self.stage_seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def _tell(self, stage: str) -> Callable[..., None]:
        def tell(done: int, total: int = 0, *_: object) -> None:
            if self.progress is not None:
                self.progress(stage, done, total)

        return tell

    def _clock(self, stage: str) -> None:
        now = time.monotonic()
        self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + now - self._began
        self._began = now

    def prepare(self) -> Prepared:
        config = self.config
        tracked, aligned = self._track_and_align()
        points = crop_points(tracked, aligned.placement)
        networks = (self.bundle.part("inverter").sha256, self.bundle.eyes_id)
        stage = self.work.stage("invert", InvertConfig(), *networks)
        inversion = invert(
            aligned.crops, self.bundle, self.faces, stage, InvertConfig(),
            progress=self._tell("invert"),
        )  # fmt: skip
        selection = select(tracked, inversion, SelectConfig())
        if config.similarity_plot is not None:
            config.similarity_plot.write_text(similarity_plot(tracked, inversion, selection))
        self._clock("invert")
        start = start_numbers(self.bundle, tracked, points, inversion, selection.row)
        ws = self._refined(aligned, inversion, selection)
        self._clock("refine")
        chosen, tuned = self._tune(tracked, aligned, points, start, ws, selection)
        person = self._person(tuned, selection.frame)
        self._clock("tune")
        start = corrected_numbers(start, chosen, tuned.motion.cpu())
        return Prepared(
            tracked=tracked, aligned=aligned, points=points, start=start,
            id_frame=selection.frame, chosen=chosen, anchors=tuned.motion, person=person,
        )  # fmt: skip

    def encode(self, target: Path) -> EncodeResult:
        config = self.config
        made = self.prepare()
        tracked, aligned, person = made.tracked, made.aligned, made.person
        fitted = fit_numbers(
            person,
            start=made.start,
            anchors=made.anchors,
            points=torch.from_numpy(made.points),
            cuts=tracked.cut,
            targets=self._targets(aligned, person),
            bundle=self.bundle,
            faces=self.faces,
            config=FitConfig(solver=config.solver),
            open_stage=lambda name, *extra: self.work.stage(
                name, config.target, CORRECTION_NOISE, *extra
            ),
            progress=self.progress,
            clock=self._clock,
        )
        pack = PackConfig.wanted(config.quality, config.motion_bits)
        packed = pack_motion_within(fitted.motion, fitted.picture_effect, fitted.metric, pack)
        settings = self._settings() | {"quality": str(packed.quality)}
        plate = find_plate(self.source, aligned.placement) if config.plate else None
        contents = Contents(
            bundle=self.bundle, identity=person.identity, motion=packed.values, steps=packed.steps,
            placement=aligned.placement, track=tracked, plate=plate, settings=settings,
            provenance=Provenance(
                generated_by=f"sglat {__version__}", consent=config.consent,
                source_sha256=bytes.fromhex(self.work.source),
            ),
        )  # fmt: skip
        by_stream = write_file(self.source, target, contents, force=config.force)
        self._clock("pack")
        check = None
        if config.self_check:
            check = check_file(
                target, aligned.crops, tracked, self.bundle, self.faces,
                progress=self._tell("check"),
            )  # fmt: skip
            self._clock("check")
        seconds = float((tracked.pts[-1] - tracked.pts[0]) * tracked.time_base)
        return EncodeResult(
            path=target, frames=len(tracked), seconds=seconds + float(1 / tracked.frame_rate),
            bytes_by_stream=by_stream, stage_seconds=self.stage_seconds,
            id_frame=made.id_frame, messages=tracked.messages() + (check.warnings if check else
            []), check=check, settings=settings,
        )  # fmt: skip

    def _track_and_align(self) -> tuple[Track, Alignment]:
        track_config, align_config = TrackConfig(face=self.config.face), AlignConfig()
        stage = self.work.stage("track", track_config, self.bundle.eyes_id)
        tracked = track(self.source, self.faces, stage, track_config, progress=self._tell("track"))
        self._clock("track")
        aligned = align(
            self.source,
            tracked,
            self.work.stage("register", align_config),
            self.work.stage("crops", align_config, self.bundle.resolution),
            resolution=self.bundle.resolution,
            config=align_config,
            progress=lambda done: self._tell("align")(done, 2 * len(tracked)),
        )
        self._clock("align")
        return tracked, aligned

    def _refined(self, aligned: Alignment, inversion: Inversion, selection: Selection) -> Tensor:
        """Return the ID latent `[L, D]` as the ID frame itself wants it."""
        config, most = RefineConfig(), self.config.tune_steps
        if most is not None:
            config = replace(config, steps=min(config.steps, most))
        stage = self.work.stage("refine", config, selection.frame)
        if not stage.is_done:
            device = self.bundle.device
            picture = aligned.crops.tensor([selection.frame]).to(device)
            start = torch.from_numpy(inversion.ws[[selection.row]]).to(device)
            found = refine_latents(
                self.bundle, picture, start, config, progress=self._tell("refine")
            )
            stage.finish({"ws": found.cpu().numpy()})
        arrays, _ = stage.result()
        return torch.from_numpy(arrays["ws"][0])

    def _tune(
        self,
        tracked: Track,
        aligned: Alignment,
        points: NDArray[np.float32],
        start: Tensor,
        ws: Tensor,
        selection: Selection,
    ) -> tuple[list[int], Tuned]:
        config = self._tune_config()
        rows = compared_frames(torch.from_numpy(~tracked.held), selection.frame)
        parts = (aligned.crops.tensor(rows[at : at + 64]) for at in range(0, len(rows), 64))
        alike = look_and_motion(parts, torch.from_numpy(points[rows]), signature(start[rows]))
        chosen = [rows[at] for at in typical_frames(alike, config.frames)]
        device = self.bundle.device
        targets = aligned.crops.tensor(chosen).to(device, memory_format=torch.channels_last)
        weights = feature_weights(
            torch.from_numpy(points[chosen]).to(device), targets.shape[-1],
            LossConfig().feature_weight,
        )  # fmt: skip
        embed = self.faces.embed_for_loss
        loss = TargetLoss(targets, weights, self.bundle.perceptual, embed, LossConfig())
        manifold = Manifold(self.bundle, ws, start[selection.frame])
        tuner = Tuner(
            manifold, targets, start[chosen].to(device), loss, config,
            budget_bits=8 * delta_budget(self.config.identity_bytes),
        )  # fmt: skip
        stage = self.work.stage("tune", config, self.config.identity_bytes, LossConfig())
        _resume(tuner, stage)
        if stage.is_done:
            return chosen, tuner.result()
        tuned = tune(
            tuner,
            progress=self._tell("tune"),
            checkpoint=lambda tuner: stage.save_checkpoint(*tuner.state()),
        )
        stage.finish(*tuner.state())
        return chosen, tuned

    def _tune_config(self) -> TuneConfig:
        steps = self.config.tune_steps
        config = TuneConfig(
            seed=self.config.seed,
            deltas=DeltaConfig(ranks=ranks_within(self.config.identity_bytes)),
        )
        if self.config.tune_frames is not None:
            config = replace(config, frames=self.config.tune_frames)
        if self.config.tuning == "none":
            return replace(config, steps=0)
        if self.config.tuning == "pivotal":  # the ID frame alone, plain PTI
            config = replace(config, frames=1)
        return config if steps is None else replace(config, steps=steps)

    def _person(self, tuned: Tuned, id_frame: int) -> TunedPerson:
        return person_within(
            self.bundle, tuned, id_frame=id_frame, size_bytes=self.config.identity_bytes
        )

    @torch.no_grad()
    def _targets(self, aligned: Alignment, person: TunedPerson) -> Callable[[int, int], Tensor]:
        def camera(first: int, last: int) -> Tensor:
            return aligned.crops.tensor(range(first, last)).to(self.bundle.device)

        def inverted(first: int, last: int) -> Tensor:
            pictures = camera(first, last)
            return torch.cat(
                [person.render_latents(self.bundle.inverter(p)) for p in pictures.split(8)]
            )

        return camera if self.config.target == "frame" else inverted

    def _settings(self) -> dict[str, str]:
        names = ("identity_bytes", "solver", "target", "tuning", "seed")
        return {name: str(getattr(self.config, name)) for name in names}


def _resume(tuner: Tuner, stage: Stage) -> None:
    stored = stage.result() if stage.is_done else stage.load_checkpoint()
    if stored is not None:
        tuner.restore(*stored)
