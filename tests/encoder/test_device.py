"""The encoder on another device than the processor.

Machines without a GPU check it with a far device (`tests.support.far`): everything is computed, and
what a GPU would refuse is refused. Since the arithmetic is the processor's, whole encodings must be
equal to the last bit; the embedded networks' derivatives are summed in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sglat
from sglat.bundles.bundle import EMBEDDED_FOLDER, Bundle
from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.encoder import analysis as analysis_module
from sglat.encoder import invert as invert_module
from sglat.encoder import person as person_module
from sglat.encoder import tune as tune_module
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import EncodeResult, encode
from sglat.encoder.gauss_newton import FastSolver, SolverConfig
from sglat.encoder.jacobians import Render, take_jacobians
from sglat.encoder.losses import LossConfig, PixelResidual, TargetLoss
from sglat.encoder.paper_losses import TermWeights, WindowLoss, region_masks
from sglat.encoder.paper_solver import PaperConfig
from sglat.encoder.solve_motion import ResidualConfig, expression_residual
from sglat.encoder.start_motion import start_motion
from sglat.encoder.track import Track
from sglat.encoder.tune import TuneConfig, Tuner
from sglat.errors import UsageError
from sglat.networks.devices import full_precision
from sglat.networks.faces import FaceBox
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import Killed, Pixels, draw_clip, see_drawn_faces
from tests.support.far import FAR, FarTensor, Misplaced, far_device
from tests.support.gpu import require_cuda
from tests.support.tolerances import FAR_RELATIVE, OTHER_DEVICE_DB

CPU = torch.device("cpu")
CONFIG = EncodeConfig(tune_steps=5, identity_bytes=6_000, self_check=True, device="cpu")


def device_of(device: torch.device) -> AbstractContextManager[None]:
    return far_device() if device == FAR else nullcontext()


# --- the far device itself ---


def mix() -> object:
    return torch.ones(2).to(FAR) + torch.ones(2)


def read() -> object:
    return torch.ones(2).to(FAR).numpy()


def draw() -> object:
    return torch.randn(2, device=FAR, generator=torch.Generator())


def double() -> object:
    return torch.ones(2).to(FAR).double()


@pytest.mark.parametrize("what", [mix, read, draw, double])
def test_a_far_device_refuses_what_a_gpu_refuses(what: Callable[[], object]) -> None:
    with far_device(), pytest.raises((Misplaced, RuntimeError, TypeError)):
        what()


def test_a_far_device_computes_real_gradients() -> None:
    with far_device():
        x = torch.tensor([1.0, 2.0], device=FAR, requires_grad=True)
        (x[[1, 0]] * torch.arange(2.0).to(FAR)).sum().backward()
        assert isinstance(x.grad, FarTensor)
        assert x.grad.cpu().tolist() == [1.0, 0.0]


# --- whole encodings ---


class PixelsAt(Pixels):
    """A perceptual distance that is none, on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def heads(self) -> list[Tensor]:
        return [head.to(self.device) for head in super().heads()]


Encode = Callable[..., EncodeResult]


@pytest.fixture
def encode_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Encode:
    """Encode a drawn face with a random bundle on a device."""
    make_tiny_bundle(tmp_path / "tiny")
    clip = draw_clip(tmp_path / "in.mp4", 5)
    for module in (tune_module, invert_module, person_module):
        monkeypatch.setattr(module, "fast_type", lambda device: torch.float32)
    monkeypatch.setitem(PaperConfig.__init__.__kwdefaults__, "epochs", 2)

    def run(device: torch.device, name: str, config: EncodeConfig, **more: Any) -> EncodeResult:
        with device_of(device):
            bundle = Bundle(tmp_path / "tiny", device)
            see_drawn_faces(bundle).__dict__["perceptual"] = PixelsAt(device)
            monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
            return encode(clip, tmp_path / name, config, **more)

    return run


CHOICES = ({}, {"solver": "paper"}, {"target": "inverted"}, {"tuning": "none"})


@pytest.mark.parametrize("option", CHOICES, ids=str)
def test_a_far_device_encodes_to_the_same_bytes(
    encode_on: Encode, tmp_path: Path, option: dict[str, Any]
) -> None:
    config = replace(CONFIG, **option)
    near = encode_on(CPU, "near.sglat", config)
    far = encode_on(FAR, "far.sglat", config)
    assert (tmp_path / "far.sglat").read_bytes() == (tmp_path / "near.sglat").read_bytes()
    assert far.check is not None and near.check is not None
    assert far.check.psnr_db == pytest.approx(near.check.psnr_db, abs=0.1)


@pytest.mark.parametrize("begun_on", [CPU, FAR], ids=str)
def test_a_far_device_goes_on_with_unfinished_work(
    encode_on: Encode, tmp_path: Path, begun_on: torch.device
) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        if stage == "expression":
            raise Killed

    encode_on(CPU, "whole.sglat", CONFIG)
    with pytest.raises(Killed):
        encode_on(begun_on, "cut.sglat", CONFIG, progress=kill)
    stages = []
    encode_on(FAR, "cut.sglat", CONFIG, progress=lambda stage, done, total: stages.append(stage))
    assert "tune" not in stages
    assert (tmp_path / "cut.sglat").read_bytes() == (tmp_path / "whole.sglat").read_bytes()


# --- pieces ---


PERSON = Person(
    ws=torch.randn(6, 16, generator=torch.Generator().manual_seed(3)), neutral=torch.zeros(34)
)


@pytest.fixture
def synthesizer_on(tmp_path: Path) -> Callable[[torch.device], Synthesizer]:
    folder = make_tiny_bundle(tmp_path / "tiny").folder
    return lambda device: Synthesizer.of(Bundle(folder, device))


def some_motion(count: int) -> Tensor:
    return 0.1 * torch.randn(count, 34, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_restored_tuner_goes_on_far_away_as_before(
    synthesizer_on: Callable[[torch.device], Synthesizer],
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(tune_module, "fast_type", lambda device: dtype)
    config = TuneConfig(steps=8, batch=2, quantize_from=0.25)

    def tuner(device: torch.device) -> Tuner:
        synthesizer = synthesizer_on(device)
        motion = some_motion(3).to(device)
        with torch.no_grad():
            targets = synthesizer.render(PERSON.to(device), motion) + 0.5
        weights = torch.ones(3, 1, 16, 16).to(device)
        loss = TargetLoss(targets, weights, None, None, LossConfig())
        return Tuner(synthesizer, PERSON, targets, motion, loss, config, budget_bits=8_000)

    near = tuner(CPU)
    losses = [near.step() for _ in range(5)]
    with far_device():
        first, second = tuner(FAR), tuner(FAR)
        found = [first.step() for _ in range(4)]  # the third and fourth are quantized
        second.restore(*first.state())
        found.append(second.step())
        assert isinstance(second.result().motion, FarTensor)
    assert found == losses


def test_a_window_is_solved_far_away(
    synthesizer_on: Callable[[torch.device], Synthesizer],
) -> None:
    config = SolverConfig(iterations=2, fresh=1, fresh_iterations=2, window=4)

    def solve(device: torch.device) -> Tensor:
        render: Render = partial(synthesizer_on(device).render, PERSON.to(device))
        residual = PixelResidual(torch.ones(1, 1, 16, 16).to(device), (1, 2))
        jacobians = take_jacobians(render, some_motion(2).to(device), (residual,))[0]
        solver = FastSolver(render, jacobians, residual, config)
        with torch.no_grad():
            targets = render(some_motion(6).to(device))
        start = torch.zeros(6, 34).to(device)
        return torch.cat(list(solver.solve(lambda a, b: targets[a:b], start)))

    with far_device():
        found = solve(FAR)
    assert isinstance(found, FarTensor)
    assert torch.equal(found.near, solve(CPU))


# --- the embedded bundle's own networks ---


@cache
def mini(device: torch.device) -> Bundle:
    return Bundle(EMBEDDED_FOLDER, device)


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5)) * 2 - 1


def some_points(count: int) -> Tensor:
    return torch.rand(count, 478, 2, generator=torch.Generator().manual_seed(6))


def invert_and_render(bundle: Bundle) -> list[Tensor]:
    ws = bundle.inverter(noise(2, 3, 128, 128).to(bundle.device))
    return [ws, bundle.generator(ws)]


def analyse(bundle: Bundle) -> list[Tensor]:
    picture = ((noise(160, 160, 3) + 1) * 127).to(torch.uint8).numpy()
    box = FaceBox(left=30, top=30, right=120, bottom=130, score=1)
    found = bundle.faces.landmarks(picture, box)
    crops = noise(2, 3, 128, 128).to(bundle.device)
    numbers = torch.tensor([len(bundle.faces.detect(picture)), found.score, found.yaw_degrees])
    points = torch.from_numpy(found.points)
    seen = [bundle.faces.parse(crops), bundle.faces.embed(crops)]
    return [numbers, points, *(values.to(bundle.device) for values in seen)]


def estimate(bundle: Bundle) -> list[Tensor]:
    random = np.random.default_rng(7)
    count = 3
    track = Track(
        width=64, height=64, time_base=Fraction(1, 25), frame_rate=Fraction(25),
        pts=np.arange(count), points=np.zeros((count, 478, 2), np.float32),
        pose=random.normal(size=(count, 3)).astype(np.float32),
        openness=np.full((count, 2), 0.3, np.float32),
        blendshapes=random.uniform(size=(count, 52)).astype(np.float32),
        score=np.ones(count, np.float32), held=np.zeros(count, bool), cut=np.zeros(count, bool),
        blink=np.zeros(count, bool), most_faces=1, other=np.zeros(count, bool),
        inside=np.ones(count, np.float32),
    )  # fmt: skip
    inversion: Any = None  # not asked for by a bundle with an estimator
    numbers = start_motion(bundle, track, some_points(count).numpy(), inversion, 0)
    assert not isinstance(numbers, FarTensor)
    return [numbers]


def lose(bundle: Bundle) -> list[Tensor]:
    config = LossConfig(weight_identity=1.0)
    targets = noise(3, 3, 128, 128).to(bundle.device)
    weights = torch.ones(3, 1, 128, 128).to(bundle.device)
    loss = TargetLoss(targets, weights, bundle.perceptual, bundle.faces.embed_for_loss, config)
    pictures = (0.5 * noise(2, 3, 128, 128)).to(bundle.device).requires_grad_()
    index = torch.tensor([2, 0])
    found = loss(pictures, targets[index], index)
    found.sum().backward()
    assert pictures.grad is not None
    return [found.detach(), pictures.grad]


def push(bundle: Bundle) -> list[Tensor]:
    residual = expression_residual(bundle, some_points(4), ResidualConfig())
    picture, tangents = noise(1, 3, 128, 128), noise(2, 3, 128, 128)
    with torch.no_grad():
        return [
            residual(picture.to(bundle.device)),
            residual.pushed(picture.to(bundle.device), tangents.to(bundle.device)),
        ]


def lose_by_groups(bundle: Bundle) -> list[Tensor]:
    targets = noise(2, 3, 128, 128).to(bundle.device)
    regions = region_masks(some_points(2).numpy(), 128).to(bundle.device)
    flags = torch.ones(2, dtype=torch.bool).to(bundle.device)
    loss = WindowLoss(bundle, TermWeights(), targets, regions, follows=flags, shut=~flags)
    pictures = (0.5 * noise(2, 3, 128, 128)).to(bundle.device).requires_grad_()
    loss(pictures).sum().backward()
    assert pictures.grad is not None
    return [pictures.grad]


PIECES = (invert_and_render, analyse, estimate, lose, push, lose_by_groups)


@pytest.mark.parametrize("piece", PIECES)
def test_the_embedded_networks_compute_the_same_far_away(
    piece: Callable[[Bundle], list[Tensor]],
) -> None:
    wanted = piece(mini(CPU))
    with far_device():
        found = piece(mini(FAR))
        numbers = [values.cpu() for values in found]
    for one, other in zip(numbers, wanted, strict=True):
        assert float((one - other).norm()) <= FAR_RELATIVE * float(other.norm())


# --- which device ---


def test_an_unknown_device_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bad-device"):
        encode(tmp_path / "in.mp4", tmp_path / "out.sglat", EncodeConfig(device="abacus"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-device"):
        encode(tmp_path / "in.mp4", tmp_path / "out.sglat", EncodeConfig(device="cuda"))


@pytest.fixture
def rounding() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32 = before


def test_a_gpu_does_not_round_while_encoding(rounding: None) -> None:
    torch.backends.cudnn.allow_tf32 = True
    with full_precision(torch.device("cuda")):
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.gpu
def test_a_gpu_encodes_as_well_as_a_processor(tmp_path: Path) -> None:
    require_cuda()
    folder = make_tiny_bundle(tmp_path / "tiny").folder
    clip = draw_clip(tmp_path / "in.mp4", 5)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for device in (CPU, torch.device("cuda")):
            bundle = Bundle(folder, device)
            see_drawn_faces(bundle).__dict__["perceptual"] = PixelsAt(device)
            patch.setattr(analysis_module, "load_bundle", lambda name, device, b=bundle: b)
            target = tmp_path / f"{device.type}.sglat"
            result = encode(clip, target, replace(CONFIG, device=device.type))
            assert result.check is not None
            found[device.type] = result.check.psnr_db
            assert len(list(sglat.decode(target, bundle=bundle))) == 5
    assert found["cuda"] == pytest.approx(found["cpu"], abs=OTHER_DEVICE_DB)
