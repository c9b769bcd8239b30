"""Unfinished work of another bundle, other settings or other code is never continued."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.bundles.manifest import write_part
from sglat.decoder.synthesizer import Synthesizer
from sglat.encoder import analysis as analysis_module
from sglat.encoder import solve_motion as solve_module
from sglat.encoder import stages as stages_module
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from sglat.encoder.gauss_newton import SolverConfig
from sglat.encoder.losses import LossConfig
from sglat.encoder.paper_pose import PaperPoseConfig
from sglat.encoder.paper_solver import PaperConfig
from sglat.encoder.solve_motion import (
    FastConfig,
    LineariseConfig,
    ProblemConfig,
    ResidualConfig,
    SmoothConfig,
)
from sglat.encoder.stages import Made, Stage, Task, stage_key
from sglat.networks.motion_estimator import MotionEstimator
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import Killed, draw_clip, see_drawn_faces

CONFIG = EncodeConfig(tune_steps=3, identity_bytes=6_000, self_check=False, keep_workfile=True)
SOLVERS = ("fast", "paper")


def opened(folder: Path) -> Bundle:
    return see_drawn_faces(Bundle(folder))


def set_part(
    folder: Path, role: str, kind: str, tensors: dict[str, Tensor], config: Mapping[str, Any],
    hints: Mapping[str, Any],
) -> None:  # fmt: skip
    write_part(
        folder, name="tiny", role=role, kind=kind, tensors=tensors, config=config, hints=hints,
        licence="none: random numbers", source="random",
    )  # fmt: skip


def tiny(folder: Path) -> Bundle:
    """A random bundle with a motion estimator."""
    make_tiny_bundle(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = MotionEstimator(hidden=4).state_dict()
    set_part(folder, "estimator", "motion_estimator", tensors, {"hidden": 4}, {})
    return opened(folder)


def sibling(bundle: Bundle, folder: Path, role: str) -> Bundle:
    """A bundle that differs in one part."""
    shutil.copytree(bundle.folder, folder)
    part = bundle.part(role)
    random = torch.Generator().manual_seed(1)
    tensors = {
        name: value + 0.3 * torch.randn(value.shape, generator=random).to(value)
        if value.is_floating_point()
        else value
        for name, value in bundle.tensors(role).items()
    }
    set_part(folder, role, part.kind, tensors, part.config, part.hints)
    return opened(folder)


DEFAULTS = (
    (PaperConfig, "epochs", 2),
    (PaperPoseConfig, "steps", 3),
    (LineariseConfig, "points", 1),
    (FastConfig, "solver", SolverConfig(iterations=1, fresh=0)),
)
"""Less work than the encoder's own."""


def run(bundle: Bundle, source: Path, target: Path, solver: str, *, until: str = "") -> None:
    """Encode and keep the work file, or be killed in a phase."""

    def kill(phase: str, done: int, total: int) -> None:
        if phase == until:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
        for config, name, value in DEFAULTS:
            patch.setitem(config.__init__.__kwdefaults__, name, value)  # type: ignore[misc]
        encode(source, target, replace(CONFIG, solver=solver), progress=kill)


@dataclass(frozen=True)
class Begun:
    """A clip and, for each solver, an encoding killed once all its motion was solved."""

    bundle: Bundle
    folder: Path

    def goes_on_as_new(self, bundle: Bundle, folder: Path, solver: str) -> bool:
        """Whether the killed encoding, continued here, gives the bytes of a new one."""
        source = self.folder / "in.mp4"
        shutil.copytree(self.folder / f"{solver}.sglat.work", folder / "cut.sglat.work")
        run(bundle, source, folder / "cut.sglat", solver)
        run(bundle, source, folder / "new.sglat", solver)
        return (folder / "cut.sglat").read_bytes() == (folder / "new.sglat").read_bytes()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    folder = Path(tmp_path_factory.mktemp("begun"))
    bundle = tiny(folder / "tiny")
    clip = draw_clip(folder / "in.mp4", 5, audio=None)
    for solver in SOLVERS:
        with pytest.raises(Killed):
            run(bundle, clip, folder / f"{solver}.sglat", solver, until="expression")
    return Begun(bundle, folder)


ROLES = ("generator", "pose_flow", "controls", "estimator", "inverter")


@pytest.mark.parametrize(
    ("role", "solver"), [*((role, "fast") for role in ROLES), ("generator", "paper")]
)
def test_work_of_another_bundle_is_not_continued(
    begun: Begun, tmp_path: Path, role: str, solver: str
) -> None:
    other = sibling(begun.bundle, tmp_path / "other", role)
    assert begun.goes_on_as_new(other, tmp_path, solver)


WEIGHTS = (
    (LossConfig, "weight_l1", "fast"),
    (ResidualConfig, "feature_weight", "fast"),
    (PaperPoseConfig, "weight_perceptual", "paper"),
    (ProblemConfig, "correction_noise", "fast"),
    (SmoothConfig, "strength", "fast"),
    (PaperConfig, "rate", "paper"),
)


@pytest.mark.parametrize(("config", "name", "solver"), WEIGHTS)
def test_work_of_other_settings_is_not_continued(
    begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    config: type, name: str, solver: str,
) -> None:  # fmt: skip
    defaults = config.__init__.__kwdefaults__  # type: ignore[misc]
    monkeypatch.setitem(defaults, name, 7 * defaults[name])
    assert begun.goes_on_as_new(begun.bundle, tmp_path, solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_work_of_another_version_of_the_code_is_not_continued(
    begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solver: str
) -> None:
    before = solve_module.corrected_motion
    monkeypatch.setattr(solve_module, "corrected_motion", lambda *args: before(*args) + 0.3)
    monkeypatch.setattr(ProblemConfig, "version", ProblemConfig.version + 1)
    assert begun.goes_on_as_new(begun.bundle, tmp_path, solver)


def test_work_of_another_release_is_not_continued(
    begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "cut.sglat.work"
    shutil.copytree(begun.folder / "fast.sglat.work", work)
    before = (work / "track" / "key").read_text()
    monkeypatch.setattr(stages_module, "__version__", "0.0.0")
    with pytest.raises(Killed):
        run(begun.bundle, begun.folder / "in.mp4", tmp_path / "cut.sglat", "fast", until="align")
    assert (work / "track" / "key").read_text() != before


def test_the_same_call_continues(begun: Begun, tmp_path: Path) -> None:
    work = tmp_path / "cut.sglat.work"
    shutil.copytree(begun.folder / "fast.sglat.work", work)
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.h5")}
    run(begun.bundle, begun.folder / "in.mp4", tmp_path / "cut.sglat", "fast")
    assert before
    assert {path: path.stat().st_mtime_ns for path in before} == before


@dataclass(frozen=True, kw_only=True)
class Doubled(Stage[float]):
    """A stage."""

    name = "doubled"
    networks = ("synthesizer",)

    factor: float = 2.0

    def run(self, task: Task, value: float) -> float:
        return self.factor * value


def test_a_key_holds_config_version_networks_and_inputs(
    begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sibling(begun.bundle, tmp_path / "other", "controls")
    one, two = Made(value=1.0, key="one"), Made(value=1.0, key="two")
    keys = [
        stage_key(Doubled(), begun.bundle, (one,)),
        stage_key(Doubled(factor=3.0), begun.bundle, (one,)),
        stage_key(Doubled(), other, (one,)),
        stage_key(Doubled(), begun.bundle, (two,)),
        stage_key(Doubled(), begun.bundle, (one, two)),
    ]
    monkeypatch.setattr(Doubled, "version", 2)
    keys.append(stage_key(Doubled(), begun.bundle, (one,)))
    assert len(set(keys)) == len(keys)
    assert stage_key(Doubled(), begun.bundle, (one,)) == keys[-1]


class Watched:
    """A bundle that notes which of its networks are asked for."""

    ROLES: ClassVar = {
        "generator": "synthesizer", "pose_flow": "synthesizer", "controls": "synthesizer",
        "inverter": "inverter", "faces": "faces", "perceptual": "perceptual",
        "landmarks": "landmarks",
    }  # fmt: skip

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.asked = bundle, set()

    def __getattr__(self, name: str) -> Any:
        if name in self.ROLES:
            self.asked.add(self.ROLES[name])
        return getattr(self.bundle, name)

    def module(self, role: str) -> Any:
        self.asked.add(role)
        return self.bundle.module(role)


@pytest.mark.parametrize("solver", SOLVERS)
def test_stages_take_the_networks_that_their_keys_hold(
    begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solver: str
) -> None:
    watched = Watched(begun.bundle)
    synthesizer = Synthesizer.of(begun.bundle)
    taken: dict[str, set[str]] = {}
    declared: dict[str, set[str]] = {}

    def task(**fields: Any) -> Task:
        watched.asked.clear()
        return Task(**fields | {"bundle": watched, "synthesizer": synthesizer})

    def key(stage: Any, bundle: Bundle, inputs: tuple[Made[Any], ...]) -> str:
        for name in list(declared)[-1:]:
            taken[name] = set(watched.asked)
        declared[stage.name] = set(stage.networks)
        return stage_key(stage, bundle, inputs)

    monkeypatch.setattr(stages_module, "Task", task)
    monkeypatch.setattr(stages_module, "stage_key", key)
    run(begun.bundle, begun.folder / "in.mp4", tmp_path / "out.sglat", solver)
    assert set(taken) >= {"track", "invert", "refine", "tune", "linearise", "expression", "smooth"}
    for name, roles in taken.items():
        assert roles <= declared[name], name
