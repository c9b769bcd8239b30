"""The first half of an encoding: from a video to a person, and what their motion is solved from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglat.bitstream.records import Identity, IdentityReference
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.encoder.adapt import AdaptConfig
from sglat.encoder.align import AlignConfig, Alignment
from sglat.encoder.choose_frames import ChooseConfig, SelectConfig
from sglat.encoder.config import PRESETS, EncodeConfig
from sglat.encoder.detail import LEAST_BYTES, UPPER_SHARE, DetailConfig, choose_resolution
from sglat.encoder.face_sheet import face_like
from sglat.encoder.invert import Inversion, InvertConfig, RefineConfig, Selection
from sglat.encoder.known import (
    CHANGED,
    CHANGED_RATIO,
    LIKE,
    KnownPerson,
    KnownProblemConfig,
    known_person,
    likeness,
    picture_distance,
    unlike,
)
from sglat.encoder.needs import check_memory, needs_of
from sglat.encoder.people import PeopleConfig
from sglat.encoder.person import PersonConfig, TunedPerson
from sglat.encoder.pti import PtiConfig
from sglat.encoder.solve_motion import MotionProblem, ProblemConfig
from sglat.encoder.stages import Made, Progress, Runner
from sglat.encoder.start_motion import StartConfig
from sglat.encoder.track import Track, TrackConfig
from sglat.encoder.tune import TuneConfig
from sglat.encoder.visible import Visible, VisibleConfig
from sglat.encoder.weight_deltas import DeltaConfig, ranks_within
from sglat.encoder.workfile import WorkFile, config_hash
from sglat.files import hash_file
from sglat.media.reader import Clip, exact_seconds
from sglat.networks.devices import choose_device


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Results of the stages up to the tuned person."""

    tracked: Made[Track]
    aligned: Made[Alignment]
    visible: Made[Visible]
    inverted: Made[Inversion]
    selected: Made[Selection]
    """Like the inversion, of no value for a known person who is not refined."""
    chosen: Made[list[int]]
    """Tuning frames, the ID frame first."""
    person: Made[TunedPerson]
    """At the base resolution."""
    problem: Made[MotionProblem]
    resolution: int
    """Of the file."""
    identity: Identity
    """Of the file: the person's, and layers above the base resolution where it has any."""
    known: KnownPerson | None = None
    """Where the person is not tuned here."""
    notes: list[str] = field(default_factory=list)
    """What a user should know, one line each."""

    @property
    def reference(self) -> IdentityReference | None:
        """Of a known identity that was not refined."""
        return None if self.known is None else self.known.reference


def begin(
    source: Path,
    work: Path,
    config: EncodeConfig,
    progress: Progress | None = None,
    *,
    bundle: Bundle | None = None,
) -> Runner:
    """Load the bundle, if none is given, and open the work file of an encoding.

    Raises:
        WorkFileError: the work file belongs to another input.
        UsageError: no such device, or too little memory.
    """
    if bundle is None:
        bundle = load_bundle(config.bundle, choose_device(config.device))
    check_memory(needs_of(bundle, config), bundle)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    return Runner(bundle, WorkFile(work, source=clip_key(clip_of(source, config))), progress)


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
    """Run the stages up to the person, tuned or known, and the motion problem.

    Raises:
        FaceError: no face. MediaError: unreadable input.
        BundleMismatchError, FormatError, UsageError: see `known_person`.
    """
    known = None if config.identity is None else read_known(run, config)
    video = run.video(source)
    people = run(PeopleConfig(resolution=run.bundle.resolution), video)
    number = (
        config.face if config.like is None else face_like(run.bundle, people.value, config.like)
    )
    tracked = run(TrackConfig(face=number), video, people)
    is_papers = config.solver == "paper"
    aligned = run(AlignConfig.within(run.bundle.resolution, is_papers=is_papers), video, tracked)
    visible = run(VisibleConfig(), tracked, aligned)
    if known is not None:
        return _with_known(run, known, tracked, aligned, visible, config)
    inverted, selected = _inverted(run, tracked, aligned, visible, config)
    start = run(StartConfig(), tracked, aligned, inverted, selected)
    ws = run(_refine_config(config, run), aligned, visible, inverted, selected)
    chosen = run(_choose_config(config), tracked, aligned, start, selected)
    resolution = _resolution(run, aligned.value, config)
    has_detail = resolution > run.bundle.resolution
    base_bytes = round(config.identity_bytes * (1 - UPPER_SHARE * has_detail))
    if config.tuning == "pti":
        pti = _pti_config(config, base_bytes)
        tuned = run(pti, aligned, visible, start, inverted, selected, chosen)
    else:
        tune = _tune_config(config, base_bytes, run)
        tuned = run(tune, aligned, visible, start, ws, chosen)
    person = run(PersonConfig(identity_bytes=base_bytes), tuned, chosen)
    identity = person.value.identity
    if has_detail:
        detail = _detail_config(config, resolution)
        identity = run(
            detail, video, tracked, aligned, visible, start, chosen, tuned, person
        ).value  # fmt: skip
    problem = ProblemConfig(target=config.matched)
    return Analysis(
        tracked=tracked, aligned=aligned, visible=visible, inverted=inverted, selected=selected,
        chosen=chosen, person=person,
        problem=run(problem, tracked, aligned, visible, start, chosen, tuned, person),
        resolution=resolution, identity=identity,
    )  # fmt: skip


def _inverted(
    run: Runner,
    tracked: Made[Track],
    aligned: Made[Alignment],
    visible: Made[Visible],
    config: EncodeConfig,
) -> tuple[Made[Inversion], Made[Selection]]:
    most = PRESETS[config.preset].inverted_frames
    if config.solver == "paper":  # every frame (METHOD.md, "The person")
        most = max(most, len(tracked.value))
    inverted = run(InvertConfig(max_frames=most), tracked, aligned)
    selected = run(SelectConfig(), tracked, visible, inverted)
    return inverted, selected


def read_known(run: Runner, config: EncodeConfig) -> Made[KnownPerson]:
    """Return the known person of an encoding; errors as for `known_person`."""
    assert config.identity is not None
    value = known_person(config.identity, run.bundle)
    assert value.reference is not None
    key = config_hash("known", value.reference.sha256.hex(), value.typical.tolist())
    return Made(value=value, key=key)


def _with_known(
    run: Runner,
    known: Made[KnownPerson],
    tracked: Made[Track],
    aligned: Made[Alignment],
    visible: Made[Visible],
    config: EncodeConfig,
) -> Analysis:
    """Return the analysis of a clip of a known person, refined on it if wanted."""
    alike = likeness(known.value, run.bundle, tracked.value, aligned.value)
    notes = [] if alike >= LIKE else [unlike(alike)]
    inverted: Made[Any] = Made(value=None, key="")
    selected: Made[Any] = inverted
    if config.adapt or not run.bundle.has("estimator"):
        inverted, selected = _inverted(run, tracked, aligned, visible, config)
    start = run(StartConfig(), tracked, aligned, inverted, selected)
    problem = run(KnownProblemConfig(), tracked, aligned, visible, start, known)
    chosen = Made(value=[0], key="")
    if config.adapt:
        chosen = run(_choose_config(config), tracked, aligned, start, selected)
        steps = AdaptConfig().steps if config.tune_steps is None else config.tune_steps
        known = run(
            AdaptConfig(steps=steps, seed=config.seed), aligned, visible, chosen, problem, known
        )
    return Analysis(
        tracked=tracked, aligned=aligned, visible=visible,
        inverted=inverted, selected=selected, chosen=chosen,
        person=Made(value=known.value, key=known.key),
        problem=problem, resolution=known.value.resolution, identity=known.value.whole,
        known=known.value, notes=notes,
    )  # fmt: skip


def change_notes(run: Runner, found: Analysis, motion: Tensor, config: EncodeConfig) -> list[str]:
    """Return a line where a known person, shown with the solved motion `[T, 34]`, differs much from
    the clip although it is them."""
    if found.known is None or found.notes:
        return []
    problem = found.problem.value
    limit = max(CHANGED, CHANGED_RATIO * (found.known.distance or 0.0))
    rows = problem.solved
    moved = motion[torch.from_numpy(rows)].to(run.bundle.device)
    shown = picture_distance(run.bundle, found.person.value, problem, rows, moved)
    if shown < limit:
        return []
    way = "enrol with this clip too" if config.adapt else "add --adapt, or enrol with this clip too"
    return [
        f"hair, glasses or light seem to differ from {config.identity}: perceptual distance "
        f"{shown:.3f}, at most {limit:.3f} expected; {way}"
    ]


def _resolution(run: Runner, aligned: Alignment, config: EncodeConfig) -> int:
    lowest = run.bundle.resolution
    is_small = config.identity_bytes < LEAST_BYTES
    if config.resolution is None and (is_small or config.tuning in ("none", "pti")):
        return lowest  # untuned layers would show detail that is not the person's
    return choose_resolution(run.bundle, aligned.placement, config.resolution)


def _is_editable(run: Runner) -> bool:
    """Return whether the bundle's inverter was trained for latents that can be edited, which
    optimisation without a regulariser would leave: e4e (METHOD.md, "The person")."""
    return run.bundle.has("inverter") and run.bundle.part("inverter").kind == "e4e"


def _refine_config(config: EncodeConfig, run: Runner) -> RefineConfig:
    steps = PRESETS[config.preset].refine_steps
    if config.tuning == "pti" or _is_editable(run):
        return RefineConfig(steps=0)
    return RefineConfig(steps=min(steps, config.tune_steps or steps))


def _choose_config(config: EncodeConfig) -> ChooseConfig:
    if config.tuning == "id-frame":
        return ChooseConfig(frames=1)
    return ChooseConfig() if config.tune_frames is None else ChooseConfig(frames=config.tune_frames)


def _detail_config(config: EncodeConfig, resolution: int) -> DetailConfig:
    steps = PRESETS[config.preset].detail_steps
    return DetailConfig(
        resolution=resolution, identity_bytes=config.identity_bytes, seed=config.seed,
        steps=min(steps, config.tune_steps or steps),
    )  # fmt: skip


def _pti_config(config: EncodeConfig, identity_bytes: int) -> PtiConfig:
    steps = PtiConfig().steps if config.tune_steps is None else config.tune_steps
    return PtiConfig(
        steps=min(steps, PtiConfig().steps),
        seed=config.seed,
        identity_bytes=identity_bytes,
        deltas=DeltaConfig(ranks=ranks_within(identity_bytes)),
    )


def _tune_config(config: EncodeConfig, identity_bytes: int, run: Runner) -> TuneConfig:
    preset = PRESETS[config.preset]
    steps = preset.tune_steps if config.tune_steps is None else config.tune_steps
    latent = TuneConfig()
    if _is_editable(run):
        latent = TuneConfig(latent_share=0.0, rate_latent=0.0)
    return replace(
        latent,
        steps=0 if config.tuning == "none" else steps,
        batch=preset.tune_batch,
        seed=config.seed,
        identity_bytes=identity_bytes,
        deltas=DeltaConfig(ranks=ranks_within(identity_bytes)),
        motion_bank=config.motion_bank,
    )
