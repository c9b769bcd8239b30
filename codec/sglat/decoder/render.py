"""StyleSpace vectors to pictures: the second half of decoding, and the device it runs on."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sglat.bitstream.records import (
    DenseDelta,
    GainDelta,
    LowRankDelta,
    QuantizedTensor,
    SparseDelta,
    SpectralDelta,
    WeightDelta,
)
from sglat.bundles.bundle import PoseTurner
from sglat.bundles.controls import Controls
from sglat.decoder.animate import Person, animate
from sglat.errors import BundleMismatchError, UsageError
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylegan2_fast import FastSynthesis

Device = Literal["auto", "cpu", "cuda", "mps"]
DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name; `auto` takes CUDA, then MPS, then the processor.

    Raises:
        UsageError: an unknown name, or a device that this machine does not have.
    """
    if name not in DEVICES:
        raise UsageError("bad-device", f"expected one of {', '.join(DEVICES)}, got {name!r}")
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, is_there in present.items() if is_there)
    if not present[name]:
        raise UsageError("no-device", f"this machine has no {name}; use --device cpu")
    return torch.device(name)


def tuned_generator(generator: Generator, deltas: Iterable[WeightDelta]) -> Generator:
    """Return a copy of a generator with an identity's weight deltas applied in order.

    Args:
        generator: stays as it is.
        deltas: as the file stores them.

    Raises:
        BundleMismatchError: a delta names a tensor the generator lacks or has in another shape, or
            makes a weight that is not finite.
    """
    tuned = copy.deepcopy(generator)
    weights = dict(tuned.named_parameters())
    with torch.no_grad():
        for delta in deltas:
            _apply(weights, delta)
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise BundleMismatchError("bad-delta", f"weight {name} is not finite after its deltas")
    return tuned


def _apply(weights: dict[str, torch.nn.Parameter], delta: WeightDelta) -> None:
    shape = delta.values.values.shape if isinstance(delta, DenseDelta) else delta.shape
    weight = weights.get(delta.name)
    if weight is None or tuple(weight.shape) != tuple(shape):
        found = "none" if weight is None else f"{tuple(weight.shape)}"
        raise BundleMismatchError(
            "bad-delta", f"expected a weight {delta.name} {tuple(shape)}, the generator has {found}"
        )

    def tensor(values: QuantizedTensor) -> Tensor:
        return torch.from_numpy(values.dequantize()).to(weight)

    match delta:
        case LowRankDelta():
            weight.add_((tensor(delta.left) @ tensor(delta.right)).view_as(weight))
        case SpectralDelta():
            left, right = (torch.from_numpy(part).to(weight) for part in delta.dequantize())
            weight.add_((left @ right).view_as(weight))
        case GainDelta():
            weight.mul_((1 + tensor(delta.gains)).view(-1, *[1] * (weight.ndim - 1)))
        case DenseDelta():
            weight.add_(tensor(delta.values))
        case SparseDelta():
            indices = torch.from_numpy(delta.indices).to(weight.device)
            weight.view(-1).index_add_(0, indices, tensor(delta.values))


class Renderer:
    """Renders one person's motion; for decoding, where weights no longer change.

    Args:
        person: latent and neutral.
        generator: with the person's deltas applied, on its device.
        pose_flow: turns latents.
        controls: the 32 directions.
        half: 16-bit features in the large layers: float16 on GPUs, bfloat16 on processors, where it
            pays if they compute in it.
        workers: frames rendered side by side on a processor, one thread each. Small pictures gain
            more from this than from sharing each layer among the threads; 0 takes PyTorch's count.
    """

    def __init__(
        self,
        person: Person,
        generator: Generator,
        *,
        pose_flow: PoseTurner,
        controls: Controls,
        half: bool = False,
        workers: int = 0,
    ) -> None:
        self.person = person
        self.generator = generator
        self.pose_flow = pose_flow
        self.controls = controls
        on_processor = generator.const.device.type == "cpu"
        narrow = torch.bfloat16 if on_processor else torch.float16
        self._synthesis = FastSynthesis(generator, dtype=narrow if half else torch.float32)
        self._workers = workers or torch.get_num_threads()
        has_pool = on_processor and self._workers > 1
        self._pool = _single_threaded_pool(self._workers) if has_pool else None

    def render(self, motion: Tensor) -> Tensor:
        """Return pictures `[N, 3, R, R]` in [-1, 1] of motion `[N, 34]`."""
        motion = motion.to(self.person.ws)
        if self._pool is None or len(motion) == 1:
            return self._render(motion)
        mode = torch.is_inference_mode_enabled()

        def work(part: Tensor) -> Tensor:
            with torch.inference_mode(mode):  # the mode is each thread's own
                return self._render(part)

        return torch.cat(
            list(self._pool.map(work, motion.tensor_split(min(self._workers, len(motion)))))
        )

    def _render(self, motion: Tensor) -> Tensor:
        styles = animate(
            self.person,
            motion,
            generator=self.generator,
            pose_flow=self.pose_flow,
            controls=self.controls,
        )
        pictures: Tensor = self._synthesis(styles)
        return pictures.clamp(-1, 1)


def _single_threaded_pool(workers: int) -> ThreadPoolExecutor:
    """Return a pool whose threads each run PyTorch on one core; the caller's setting stays."""
    own = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    started = threading.Barrier(workers + 1)
    for _ in range(workers):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(own)  # also what threads made later begin with
    return pool


def resize(pictures: Tensor, side: int) -> Tensor:
    """Return `[N, 3, H, W]` at another side, without aliasing."""
    if pictures.shape[-1] == side:
        return pictures
    larger = side > pictures.shape[-1]
    mode = "bicubic" if larger else "bilinear"
    resized = functional.interpolate(
        pictures, (side, side), mode=mode, antialias=not larger, align_corners=False
    )
    return resized.clamp(-1, 1)


def to_pixels(pictures: Tensor) -> NDArray[np.uint8]:
    """Return `[N, 3, H, W]` in [-1, 1] as uint8 RGB `[N, H, W, 3]`."""
    levels = pictures.clamp(-1, 1).add(1).mul(127.5).round_().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
