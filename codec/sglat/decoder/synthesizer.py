"""The synthesizer: a person and motion to StyleSpace vectors and pictures, differentiable.

Generator, pose flow and controls belong together: they give a file's numbers their meaning, and
their hash is the decoder id in its header. The encoder renders by the same class.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sglat.bitstream.records import (
    FIRST_CONTROL,
    DenseDelta,
    GainDelta,
    Identity,
    LowRankDelta,
    QuantizedTensor,
    SparseDelta,
    SpectralDelta,
    WeightDelta,
    weight_resolution,
)
from sglat.bundles.bundle import Bundle, PoseTurner
from sglat.bundles.controls import Controls
from sglat.errors import BundleMismatchError
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylegan2_fast import FastSynthesis

Transfer = Literal["relative", "absolute"]


@dataclass(frozen=True, kw_only=True)
class Person:
    """An identity as tensors, ready to be rendered."""

    ws: Tensor
    """The ID latent, `[L, D]`."""
    neutral: Tensor
    """The ID frame's own yaw, pitch (degrees) and controls, `[34]`."""

    def to(self, device: torch.device | str) -> Person:
        """Return the same person on a device."""
        return Person(ws=self.ws.to(device), neutral=self.neutral.to(device))


class Synthesizer:
    """Renders motion of a person; the generator's weights may be replaced per call.

    Generator, pose flow and controls have one id, the sha256 over the three as their bundle stores
    them, 32 bytes.
    """

    def __init__(
        self, generator: Generator, pose_flow: PoseTurner, controls: Controls, *, decoder_id: bytes
    ) -> None:
        self.generator = generator
        self.pose_flow = pose_flow
        self.controls = controls
        self.id = decoder_id

    @classmethod
    def of(cls, bundle: Bundle) -> Synthesizer:
        """Return a bundle's synthesizer on the bundle's device."""
        return cls(
            bundle.generator, bundle.pose_flow, bundle.controls, decoder_id=bundle.decoder_id
        )

    def up_to(self, resolution: int) -> Synthesizer:
        """Return this synthesizer without the generator's layers above a resolution."""
        generator = self.generator.up_to(resolution)
        controls = self.controls.fitted(generator.config.style_widths)
        return Synthesizer(generator, self.pose_flow, controls, decoder_id=self.id)

    @property
    def device(self) -> torch.device:
        """Where motion and persons are expected and pictures are made."""
        return self.generator.const.device

    def person(self, identity: Identity) -> Person:
        """Return an identity's latent and neutral on the generator's device."""
        w_avg, config = self.generator.w_avg, self.generator.config
        offset = torch.from_numpy(identity.latent_offset()).to(w_avg)
        expected = (config.num_ws, config.style_dim)
        if tuple(offset.shape) != expected:
            raise BundleMismatchError(
                "wrong-latent", f"expected a latent {expected}, found {tuple(offset.shape)}"
            )
        return Person(
            ws=w_avg + offset, neutral=torch.from_numpy(identity.neutral.copy()).to(w_avg)
        )

    def tuned(self, deltas: Iterable[WeightDelta]) -> Synthesizer:
        """Return a synthesizer whose generator is a copy with weight deltas applied in order.

        Its id stays the same: files name the bundle's weights, and carry the deltas themselves.

        Raises:
            BundleMismatchError: a delta names a tensor the generator lacks or has in another shape,
                or makes a weight that is not finite.
        """
        generator = copy.deepcopy(self.generator)
        weights = dict(generator.named_parameters())
        with torch.no_grad():
            for delta in deltas:
                _apply(weights, delta)
        for name, weight in weights.items():
            if not bool(torch.isfinite(weight).all()):
                raise BundleMismatchError(
                    "bad-delta", f"weight {name} is not finite after its deltas"
                )
        return Synthesizer(generator, self.pose_flow, self.controls, decoder_id=self.id)

    def pose_free(self, person: Person) -> Tensor:
        """Return the latent rows of a person without the pose, for `styles`: once for all frames.

        Its own pose is that of the person's neutral.
        """
        return self.pose_flow.pose_free(person.ws[None], person.neutral[None, :FIRST_CONTROL])

    def styles(
        self, person: Person, motion: Tensor, *, pose_free: Tensor | None = None
    ) -> list[Tensor]:
        """Return the StyleSpace vectors of each frame, one `[N, C]` per layer.

        The ID latent is turned from its own yaw and pitch to the frame's, goes through the
        generator's affine layers, and is moved along the controls by their difference from neutral.
        Motion has yaw, pitch (degrees) and controls, `[N, 34]`; differentiable. `pose_free` is the
        person's, by the method of that name; None: made here.
        """
        if pose_free is None:
            pose_free = self.pose_free(person)
        turned = self.pose_flow.posed(pose_free, person.ws[None], motion[:, :FIRST_CONTROL])
        offsets = motion[:, FIRST_CONTROL:] - person.neutral[FIRST_CONTROL:]
        return self.controls.apply(self.generator.styles(turned), offsets)

    def render(
        self,
        person: Person,
        motion: Tensor,
        *,
        weights: Mapping[str, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return pictures `[N, 3, H, W]`, nominally in [-1, 1], not clamped.

        Args:
            person: latent and neutral.
            motion: yaw, pitch (degrees) and controls, `[N, 34]`.
            weights: generator tensors by name that replace its own in synthesis (not in the affine
                layers).
            dtype: of the generator's features; the decoder's is float32.
        """
        styles = self.styles(person, motion)
        return synthesize(self.generator, styles, weights=weights, dtype=dtype)


@torch.inference_mode()
def portrait(bundle: Bundle, identity: Identity) -> Tensor:
    """Return a person in the pose and expression of the ID frame, `[1, 3, H, W]` in [-1, 1]."""
    synthesizer = Synthesizer.of(bundle).tuned(identity.weight_deltas())
    person = synthesizer.person(identity)
    return synthesizer.render(person, person.neutral[None]).clamp(-1, 1)


def synthesize(
    generator: Generator,
    styles: list[Tensor],
    *,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return pictures `[N, 3, H, W]` of StyleSpace vectors; options as `Synthesizer.render`."""
    return call_with(generator, weights or {}, "synthesize", styles, dtype=dtype)  # type: ignore[no-any-return]


def call_with(
    generator: Generator, weights: Mapping[str, Tensor], method: str, *args: Any, **options: Any
) -> Any:
    """Call a method of a generator with some of its tensors replaced by name."""
    if not weights:
        return getattr(generator, method)(*args, **options)
    named = {f"generator.{name}": value for name, value in weights.items()}
    return functional_call(_Method(generator, method), named, args, options)


class _Method(nn.Module):
    """A method of a generator as a `forward`, which `functional_call` needs."""

    def __init__(self, generator: Generator, method: str) -> None:
        super().__init__()
        self.generator, self.method = generator, method

    def forward(self, *args: Any, **options: Any) -> Any:
        return getattr(self.generator, self.method)(*args, **options)


def held_rungs(bundle: Bundle, identity: Identity) -> tuple[int, ...]:
    """Return the resolutions that an identity can be rendered at, ascending.

    These are the bundle's rungs up to the file's own, as long as the identity has weight deltas in
    their layers: untuned layers would add detail that is not the person's.

    Args:
        bundle: at the file's resolution.
        identity: perhaps with its last layers cut off.
    """
    tuned = {weight_resolution(delta.name) for delta in identity.weight_deltas()}
    lowest, *upper = (rung for rung in bundle.rungs if rung <= bundle.resolution)
    held = [lowest]
    for rung in upper:
        if rung not in tuned:
            break
        held.append(rung)
    return tuple(held)


def retarget(
    motion: Tensor, *, puppet: Tensor, driver: Tensor | None, transfer: Transfer
) -> Tensor:
    """Return a driver's motion `[N, 34]` as motion of the person shown.

    The transfer `relative` carries over the difference from the driver's neutral `[34]` to the
    puppet's, the person's shown; `absolute` takes the values as they are, as for a driver of None,
    the same person.

    Source: the paper's figure 7; METHOD.md, "Decoding".
    """
    if driver is None or transfer == "absolute":
        return motion
    return motion + (puppet - driver)


def _apply(weights: dict[str, nn.Parameter], delta: WeightDelta) -> None:
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
    """Renders one person's motion; inference only.

    Args:
        synthesizer: with the person's deltas applied.
        person: latent and neutral.
        half: 16-bit features: float16 in the large layers on GPUs, bfloat16 in all on processors,
            where it pays if they compute in it.
        workers: frames rendered side by side on a processor, one thread each. Small pictures gain
            more from this than from sharing each layer among the threads; 0 takes PyTorch's count.
    """

    def __init__(
        self, synthesizer: Synthesizer, person: Person, *, half: bool = False, workers: int = 0
    ) -> None:
        self.synthesizer = synthesizer
        self.person = person
        with torch.no_grad():
            self._pose_free = synthesizer.pose_free(person)
        on_processor = synthesizer.device.type == "cpu"
        narrow = torch.bfloat16 if on_processor else torch.float16
        self._synthesis = FastSynthesis(
            synthesizer.generator, dtype=narrow if half else torch.float32
        )
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
        styles = self.synthesizer.styles(self.person, motion, pose_free=self._pose_free)
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
    torch.set_num_threads(own)  # also the default of threads started later
    return pool
