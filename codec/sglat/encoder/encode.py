"""The encoding pipeline: track, align, invert, choose, tune, solve, quantize, write, check."""

from __future__ import annotations

from dataclasses import InitVar, asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from sglat.bitstream.records import Identity, Provenance
from sglat.bundles.bundle import load_bundle
from sglat.encoder.align import AlignConfig, Alignment
from sglat.encoder.choose_frames import ChooseConfig, SelectConfig, similarity_plot
from sglat.encoder.crops import find_plate
from sglat.encoder.detail import (
    LEAST_BYTES,
    UPPER_SHARE,
    DetailConfig,
    choose_resolution,
    face_side,
)
from sglat.encoder.face_sheet import face_like, write_face_sheet
from sglat.encoder.invert import Inversion, InvertConfig, RefineConfig, Selection
from sglat.encoder.motion_bank import MotionBankConfig
from sglat.encoder.paper_solver import PaperConfig
from sglat.encoder.people import People, PeopleConfig
from sglat.encoder.person import PersonConfig, TunedPerson
from sglat.encoder.quantize import QuantizeConfig
from sglat.encoder.selfcheck import SelfCheck, check_file
from sglat.encoder.solve_motion import FastConfig, MotionProblem, ProblemConfig, solve_motion
from sglat.encoder.stages import Made, Progress, Runner
from sglat.encoder.start_motion import StartConfig
from sglat.encoder.track import Track, TrackConfig
from sglat.encoder.tune import TuneConfig
from sglat.encoder.visible import Visible, VisibleConfig
from sglat.encoder.weight_deltas import DeltaConfig, ranks_within
from sglat.encoder.workfile import WorkFile, check_apart, default_workfile, remove_work
from sglat.encoder.write import Contents, check_consent, write_file
from sglat.errors import FaceError, MediaError
from sglat.files import check_input, hash_file, output_lock, refuse_existing, write_atomically
from sglat.media.audio import SoundChoice
from sglat.media.reader import Clip, exact_seconds
from sglat.networks.devices import choose_device, full_precision
from sglat.version import __version__


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Everything a user may choose."""

    bundle: str = "mini"
    """Name or folder of the weights."""
    face: int = 1
    """1 is the largest face over the clip."""
    like: Path | None = None
    """A picture of the person to follow, in place of a number."""
    quality: int | None = None
    """0 to 100: quantizer of the motion. None: 62, or less where that takes more than 47 bits a
    frame."""
    motion_bits: float | None = None
    """Most bits a frame for the motion; the quality is lowered where they are exceeded. None: no
    limit where a quality is given."""
    identity_bytes: int = 64_000
    """Most bytes of the identity, all layers."""
    resolution: int | None = None
    """Of the file, one of the bundle's rungs; None: the largest for which the source has detail."""
    solver: Literal["fast", "paper"] = "fast"
    """How the motion is solved for."""
    target: Literal["frame", "inverted"] = "frame"
    """What the motion is fitted to: the camera frame, or the tuned generator's rendering of its
    inversion."""
    tuning: Literal["manifold", "pivotal", "none"] = "manifold"
    """How the generator is tuned to the person."""
    tune_steps: int | None = None
    """None: the default of tuning."""
    tune_frames: int | None = None
    """Tuning frames; None: the default of their choice."""
    motion_bank: MotionBankConfig = MotionBankConfig()  # noqa: RUF009
    """Regularisation of tuning by motions that the clip lacks, where the bundle has a motion bank;
    off by default."""
    plate: bool = False
    """Store a still background for full frames."""
    seed: int = 0
    """Of all random numbers."""
    workfile: Path | None = None
    """Folder for resuming; None puts it beside the output."""
    keep_workfile: bool = False
    """Keep the folder of unfinished work after the end."""
    start_seconds: float = 0.0
    """First second that is encoded; sound is trimmed with the pictures."""
    end_seconds: float | None = None
    """The last frame before it is encoded; None: to the end."""
    audio: SoundChoice = "auto"
    """How sound is stored: compressed sound is copied and PCM becomes FLAC unless chosen."""
    resume: bool = True
    """Continue unfinished work; else forget it."""
    device: str = "cpu"
    """As for decoding. Other devices than the processor round differently and give other bytes."""
    threads: int | None = None
    """Processor threads; None: all."""
    self_check: bool = True
    """Decode the result and measure it."""
    similarity_plot: Path | None = None
    """Write the identity similarity over time as SVG here."""
    consent: str = ""
    """The pictured person's statement of consent, kept in the file."""
    force: bool = False
    """Replace an existing output."""
    is_forced: InitVar[bool] = False
    """An older name of `force`."""

    def __post_init__(self, is_forced: bool) -> None:
        object.__setattr__(self, "force", self.force or is_forced)


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
    id_frame: int
    """Number of the frame that gives the look."""
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


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Results of the stages up to the tuned person."""

    tracked: Made[Track]
    aligned: Made[Alignment]
    visible: Made[Visible]
    inverted: Made[Inversion]
    selected: Made[Selection]
    chosen: Made[list[int]]
    """Tuning frames, the ID frame first."""
    person: Made[TunedPerson]
    """At the base resolution."""
    problem: Made[MotionProblem]
    resolution: int
    """Of the file."""
    identity: Identity
    """Of the file: the person's, and layers above the base resolution where it has any."""


def encode(
    source: Path,
    target: Path,
    config: EncodeConfig | None = None,
    *,
    progress: Progress | None = None,
) -> EncodeResult:
    """Encode a talking-head video; arguments and errors as for `sglat.encode`.

    After an interruption the same call continues from the work file and ends with the same bytes on
    a processor. Another device continues it too; it may give other bytes, and a GPU that sums
    gradients in any order may do so from run to run.
    """
    config = config or EncodeConfig()
    source, target = Path(source), Path(target)
    work = config.workfile or default_workfile(target)
    _check_files(source, target, work, config)
    with output_lock(target):
        if not config.resume:
            remove_work(work)
        run = begin(source, work, config, progress)
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


def _check_files(source: Path, target: Path, work: Path, config: EncodeConfig) -> None:
    plot, inputs = config.similarity_plot, (source, config.like)
    if config.like is not None:
        check_input(config.like)
    check_consent(config.consent)
    refuse_existing(target, force=config.force, inputs=inputs)
    if plot is not None:
        refuse_existing(plot, force=config.force, inputs=(*inputs, target))
    check_apart(work, (*inputs, target))


def begin(
    source: Path, work: Path, config: EncodeConfig, progress: Progress | None = None
) -> Runner:
    """Load the bundle and open the work file of an encoding.

    Raises:
        WorkFileError: the work file belongs to another input.
    """
    device = choose_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    bundle = load_bundle(config.bundle, device)
    return Runner(bundle, WorkFile(work, source=clip_key(clip_of(source, config))), progress)


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


def clip_of(source: Path, config: EncodeConfig) -> Clip:
    """Return the range of a video that is encoded."""
    end = config.end_seconds
    return Clip(
        path=source,
        start_seconds=exact_seconds(config.start_seconds),
        end_seconds=None if end is None else exact_seconds(end),
    )


def clip_key(clip: Clip) -> str:
    """Return the sha256 of a video, hexadecimal, and its range if it has one."""
    digest = hash_file(clip.path)
    return digest if clip.is_whole else f"{digest}:{clip.start_seconds}:{clip.end_seconds}"


def analyse(run: Runner, source: Path | Clip, config: EncodeConfig) -> Analysis:
    """Run the stages up to the tuned person and the motion problem.

    Raises:
        FaceError: no face. MediaError: unreadable input.
    """
    video = run.video(source)
    people = run(PeopleConfig(resolution=run.bundle.resolution), video)
    number = (
        config.face if config.like is None else face_like(run.bundle, people.value, config.like)
    )
    tracked = run(TrackConfig(face=number), video, people)
    aligned = run(AlignConfig(resolution=run.bundle.resolution), video, tracked)
    visible = run(VisibleConfig(), tracked, aligned)
    inverted = run(InvertConfig(), tracked, aligned)
    selected = run(SelectConfig(), tracked, visible, inverted)
    start = run(StartConfig(), tracked, aligned, inverted, selected)
    ws = run(_refine_config(config), aligned, visible, inverted, selected)
    chosen = run(_choose_config(config), tracked, aligned, start, selected)
    resolution = _resolution(run, aligned.value, config)
    has_detail = resolution > run.bundle.resolution
    base_bytes = round(config.identity_bytes * (1 - UPPER_SHARE * has_detail))
    tuned = run(_tune_config(config, base_bytes), aligned, visible, start, ws, chosen)
    person = run(PersonConfig(identity_bytes=base_bytes), tuned, chosen)
    identity = person.value.identity
    if has_detail:
        detail = _detail_config(config, resolution)
        identity = run(
            detail, video, tracked, aligned, visible, start, chosen, tuned, person
        ).value  # fmt: skip
    problem = ProblemConfig(target=config.target)
    return Analysis(
        tracked=tracked, aligned=aligned, visible=visible, inverted=inverted, selected=selected,
        chosen=chosen, person=person,
        problem=run(problem, tracked, aligned, visible, start, chosen, tuned, person),
        resolution=resolution, identity=identity,
    )  # fmt: skip


def _resolution(run: Runner, aligned: Alignment, config: EncodeConfig) -> int:
    lowest = run.bundle.resolution
    is_small = config.identity_bytes < LEAST_BYTES
    if config.resolution is None and (is_small or config.tuning == "none"):
        return lowest  # untuned layers would show detail that is not the person's
    return choose_resolution(run.bundle, aligned.placement, config.resolution)


def _encode(run: Runner, source: Clip, target: Path, config: EncodeConfig) -> EncodeResult:
    found = analyse(run, source, config)
    expression = PaperConfig() if config.solver == "paper" else FastConfig()
    solved = solve_motion(run, found.person, found.problem, expression)
    packed = run(QuantizeConfig.of(config.quality, config.motion_bits), solved).value
    tracked, aligned = found.tracked.value, found.aligned.value
    settings = _settings(config) | {"quality": str(packed.quality)}
    if found.resolution > run.bundle.resolution:
        settings["face_pixels"] = str(round(face_side(aligned.placement)))
    with run.clock("pack"):
        contents = Contents(
            bundle=run.bundle.at(found.resolution), identity=found.identity, motion=packed.values,
            steps=packed.steps, placement=aligned.placement, track=tracked, settings=settings,
            plate=find_plate(source, aligned.placement) if config.plate else None,
            provenance=Provenance(
                generated_by=f"sglat {__version__}", consent=config.consent,
                source_sha256=bytes.fromhex(run.work.source.split(":")[0]),
            ),
        )  # fmt: skip
        written = write_file(source, target, contents, audio=config.audio, force=config.force)
    if config.similarity_plot is not None:
        plot = similarity_plot(tracked, found.inverted.value, found.selected.value)
        write_atomically(config.similarity_plot, plot)
    check = None
    if config.self_check:
        with run.clock("check"):
            tell = run.teller("check")
            check = check_file(target, aligned.crops, tracked, run.bundle, progress=tell)
    seconds = float((tracked.pts[-1] - tracked.pts[0]) * tracked.time_base)
    return EncodeResult(
        path=target, frames=len(tracked), seconds=seconds + float(1 / tracked.frame_rate),
        bytes_by_stream=written.bytes_by_stream, stage_seconds=run.seconds,
        id_frame=found.chosen.value[0],
        messages=[
            *written.notes, *tracked.messages(), *found.visible.value.messages(),
            *(check.warnings if check else []),
        ],
        check=check, settings=settings,
    )  # fmt: skip


def _refine_config(config: EncodeConfig) -> RefineConfig:
    refine = RefineConfig()
    if config.tune_steps is None:
        return refine
    return replace(refine, steps=min(refine.steps, config.tune_steps))


def _choose_config(config: EncodeConfig) -> ChooseConfig:
    if config.tuning == "pivotal":  # the ID frame alone: plain pivotal tuning
        return ChooseConfig(frames=1)
    return ChooseConfig() if config.tune_frames is None else ChooseConfig(frames=config.tune_frames)


def _detail_config(config: EncodeConfig, resolution: int) -> DetailConfig:
    detail = DetailConfig(
        resolution=resolution, identity_bytes=config.identity_bytes, seed=config.seed
    )
    if config.tune_steps is None:
        return detail
    return replace(detail, steps=min(detail.steps, config.tune_steps))


def _tune_config(config: EncodeConfig, identity_bytes: int) -> TuneConfig:
    tune = TuneConfig(
        seed=config.seed,
        identity_bytes=identity_bytes,
        deltas=DeltaConfig(ranks=ranks_within(identity_bytes)),
        motion_bank=config.motion_bank,
    )
    steps = 0 if config.tuning == "none" else config.tune_steps
    return tune if steps is None else replace(tune, steps=steps)


def _settings(config: EncodeConfig) -> dict[str, str]:
    names = ("identity_bytes", "solver", "target", "tuning", "seed")
    return {name: str(getattr(config, name)) for name in names}
