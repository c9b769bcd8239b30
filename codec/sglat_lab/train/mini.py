"""Train the embedded bundle: `python -m sglat_lab.train.mini --packs DIR --teachers DIR --out DIR`.

Resumable, on CPU or CUDA. Phase `autoencoder` trains inverter and generator; phase `manifold`
renders every picture as a file does: from the ID latent of one frame, pose and 32 controls of
another. Adversarial, identity, region and pose losses are switched on by their weights.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from sglat.bundles.bundle import load_bundle
from sglat.errors import BundleError
from sglat.files import atomic_file
from sglat.networks.devices import feature_type
from sglat.networks.face_points import feature_weights
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.measure.teachers import MobileFaceIdentity, SqueezePerceptual
from sglat_lab.train.data import FaceBatch, FaceSampler, as_fine, prepare
from sglat_lab.train.export import control_sigma
from sglat_lab.train.losses import AdaptiveAugment, Adversary, ControlLosses, PoseLoss, RegionLoss
from sglat_lab.train.mini_model import (
    MiniModel,
    grown,
    load_start,
    update_average,
    validate,
)

SIZES = (128, 256)
OPTIONS = {"phase": "stage", "weight_region": "weight-locality"}  # of fields with another name


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a run, written into the checkpoint."""

    phase: str = "manifold"
    """`autoencoder` or `manifold`; option `--stage`."""
    size: int = 128
    """Side of the generator's picture: 128 or 256. Weights of a smaller one are grown."""
    resolution: int = 0
    """Resolution of the losses; layers above it are not trained. 0: that of the picture."""
    batch: int = 8
    rate_generator: float = 2e-3
    """Learning rate of the generator (equalised weights)."""
    rate_inverter: float = 3e-3
    rate_motion: float = 1e-3
    """Learning rate of pose flow, controls and motion estimator."""
    weight_perceptual: float = 0.03
    weight_identity: float = 0.0
    weight_adversarial: float = 0.0
    """Of the discriminator, with adaptive augmentation."""
    weight_r1: float = 1.0
    weight_region: float = 0.0
    """Of changes outside a control's face region (phase `manifold`); option
    `--weight-locality`."""
    weight_pose: float = 0.0
    """Of requested against measured pose at random angles (phase `manifold`)."""
    trial_faces: int = 4
    """Faces of a batch for the region and pose losses."""
    weight_features: float = 2.0
    """Extra L1 weight of eyes and mouth."""
    identity_every: int = 4
    ema: float = 0.998
    """Decay of the averaged weights per step at full warm-up."""
    still_share: float = 0.4
    """Share of stills in a batch; the rest are pairs of frames of one clip."""
    far_share: float = 0.0
    """Share of pairs with widely different head poses."""
    precision: str = "auto"
    """Of features: `bf16`, `fp32`, or `auto`: bf16 where that is faster."""
    compile: str = "auto"
    """Use `torch.compile`: `on`, `off`, or `auto`: on CUDA."""
    seed: int = 0
    minutes: float = 60.0
    """Stop after this much wall time."""
    steps: int = 0
    """Stop after so many steps of this run; 0: by time alone."""
    anneal_minutes: float = 0.0
    """Decay the learning rates to 5 % over the last minutes."""
    anneal_steps: int = 0
    """Likewise over the last of `steps`, independent of the machine's speed."""

    @property
    def side(self) -> int:
        """Side of the compared pictures in pixels."""
        return self.resolution or self.size


def check(config: TrainConfig) -> None:
    """Exit with one line if the configuration cannot be trained."""
    full = config.size
    if full not in SIZES:
        raise SystemExit(f"--size: expected one of {SIZES}, found {full}")
    if config.compile not in ("auto", "on", "off"):
        raise SystemExit(f"--compile: expected auto, on or off, found {config.compile}")
    if config.anneal_steps > config.steps:
        raise SystemExit(
            f"--anneal-steps: expected at most the {config.steps} of --steps, "
            f"found {config.anneal_steps}"
        )
    if config.phase not in ("autoencoder", "manifold"):
        raise SystemExit(f"--stage: expected autoencoder or manifold, found {config.phase}")
    if config.precision not in ("auto", "bf16", "fp32"):
        raise SystemExit(f"--precision: expected auto, bf16 or fp32, found {config.precision}")
    if config.side not in GeneratorConfig.mini(full).resolutions:
        raise SystemExit(f"--resolution: expected a power of two to {full}, found {config.side}")
    if config.side < 32:
        raise SystemExit(f"--resolution: the losses need 32 px, found {config.side}")
    if config.side < full and (config.phase == "manifold" or config.weight_adversarial):
        raise SystemExit(
            f"--resolution: phase manifold and the adversarial term need {full}, "
            f"found {config.side}"
        )


class Trainer:
    """Model, averaged model, optimisers and counters; saves and resumes."""

    def __init__(self, config: TrainConfig, args: argparse.Namespace) -> None:
        self.config = config
        check(config)
        self.device = torch.device(args.device)
        self.out: Path = args.out
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        faces = prepare(args.packs, args.cache, config.size)
        self.sampler = FaceSampler(
            faces, args.packs, device=self.device, seed=config.seed,
            still_share=config.still_share, far_share=config.far_share,
        )  # fmt: skip
        self.dtype = feature_type(config.precision, self.device)
        print(f"device {self.device}, features in {self.dtype}", flush=True)
        self.model = self._build()
        self.average = self._build().requires_grad_(False)
        self.adversary = Adversary(
            config.size, rate=config.rate_generator * 0.8, weight_r1=config.weight_r1,
            device=self.device,
        )  # fmt: skip
        squeeze = args.teachers / "squeezenet1_1_features.npz"
        self.perceptual = SqueezePerceptual(squeeze, args.lpips_heads).to(self.device)
        self.identity = MobileFaceIdentity(args.teachers / "mobilefacenet_id.onnx").to(self.device)
        self.optimizer = self._optimizer()
        self.state: dict[str, Any] = {"step": 0, "images": 0, "seconds": 0.0, "log": []}
        self._resume(args.start)
        self.adversary.augment = AdaptiveAugment(
            seed=config.seed + self.state["step"], probability=self.state.get("augment", 0.0)
        )
        self.control_losses = self._control_losses()
        if config.compile == "on" or (config.compile == "auto" and self.device.type == "cuda"):
            self._compile()

    def _build(self) -> MiniModel:
        model = MiniModel.of_size(self.config.size)
        return model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _optimizer(self) -> torch.optim.Optimizer:
        model, config = self.model, self.config
        motion = [*model.pose_flow.parameters(), *model.estimator.parameters(), model.directions]
        groups = [
            {"params": list(model.generator.parameters()), "base": config.rate_generator},
            {"params": list(model.inverter.parameters()), "base": config.rate_inverter},
            {"params": motion, "base": config.rate_motion},
        ]
        has_fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(groups, lr=1.0, betas=(0.9, 0.99), fused=has_fused)

    def _compile(self) -> None:
        """Compile the expensive networks but the discriminator: R1 needs double backward."""
        generator, perceptual = self.model.generator, self.perceptual
        compiled = partial(torch.compile, dynamic=False)
        generator.synthesize = compiled(generator.synthesize)  # type: ignore[method-assign]
        perceptual.features = compiled(perceptual.features)  # type: ignore[method-assign]
        for network in (self.model.inverter, self.identity):
            network.compile(dynamic=False)

    @property
    def checkpoint_path(self) -> Path:
        return self.out / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint; a cut during writing leaves the previous one."""
        stored = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            **self.adversary.state(),
            "optimizer": self.optimizer.state_dict(),
            "state": self.state,
            "config": asdict(self.config),
        }
        with atomic_file(self.checkpoint_path, force=True) as file:
            torch.save(tree_map(lambda v: v.cpu() if isinstance(v, Tensor) else v, stored), file)

    def _resume(self, bundle: Path | None) -> None:
        if not self.checkpoint_path.exists():
            if bundle is not None:
                try:
                    load_start(self.model, bundle)
                except (BundleError, ValueError) as error:
                    raise SystemExit(f"cannot start from {bundle}: {error}") from error
            else:
                with torch.no_grad():
                    self.model.estimator.fit_scale(*self.sampler.label_sample())
            self.average.load_state_dict(self.model.state_dict())
            return
        bases = [group["base"] for group in self.optimizer.param_groups]
        try:
            stored = torch.load(self.checkpoint_path, map_location="cpu", weights_only=True)
            is_smaller = stored["config"].get("size", 128) < self.config.size
            if is_smaller:  # the optimisers' moments have other shapes and start anew
                stored["model"] = grown(stored["model"], self.model)
                stored["average"] = grown(stored["average"], self.model)
            self.model.load_state_dict(stored["model"])
            self.average.load_state_dict(stored["average"])
            if not is_smaller:
                self.adversary.restore(stored)
                self.optimizer.load_state_dict(stored["optimizer"])
            state = stored["state"]
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise SystemExit(f"cannot resume from {self.checkpoint_path}: {reason}") from error
        for group, base in zip(self.optimizer.param_groups, bases, strict=True):
            group["base"] = base
        self.state = state
        print(f"resumed at step {self.state['step']}, {self.state['images']} images", flush=True)

    def render(self, identity: FaceBatch, motion: FaceBatch) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return pictures, ID latents and, in phase `manifold`, the rendered StyleSpace vectors."""
        model, config = self.model, self.config
        if config.phase == "autoencoder":
            with self._reduced():
                ws = model.inverter(motion.images).float()
            return model.generator(ws, resolution=config.side, dtype=self.dtype), ws, []
        with self._reduced():
            ws = model.inverter(identity.images).float()
        styles = model.moved_styles(ws, identity, motion)
        return model.generator.synthesize(styles, dtype=self.dtype), ws, styles

    def _control_losses(self) -> ControlLosses | None:
        config, seed = self.config, self.config.seed + self.state["step"]
        if config.phase != "manifold" or not (config.weight_region or config.weight_pose):
            return None
        bundle = load_bundle("mini", self.device)
        region = pose = None
        if config.weight_region:
            with torch.no_grad():
                sigma = control_sigma(self.average, self.sampler.label_sample())
            region = RegionLoss(bundle.faces, sigma, seed=seed)
        if config.weight_pose:
            pose = PoseLoss(bundle.module("faces_landmarks"), seed=seed)
        return ControlLosses(
            region=region, pose=pose, identity=self.identity, weight_region=config.weight_region,
            weight_pose=config.weight_pose, weight_identity=config.weight_identity,
        )  # fmt: skip

    def _reduced(self) -> AbstractContextManager[object]:
        """Return a context with the configured precision of networks other than the generator."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def step(self, rate: float) -> dict[str, float]:
        """Take one optimisation step; `rate` scales all learning rates."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * rate
        identity, motion = self.sampler.pairs(config.batch)
        pictures, ws, styles = self.render(identity, motion)
        target = motion.images
        if config.side != config.size:
            target = F.interpolate(target, size=config.side, mode="area")
        pictures, target = (as_fine(images, motion.is_fine) for images in (pictures, target))
        weights = feature_weights(motion.points, config.side, config.weight_features)
        terms = {"l1": ((pictures - target).abs() * weights).mean()}
        with self._reduced():
            terms["perceptual"] = self.perceptual(pictures, target).mean()
        loss = terms["l1"] + config.weight_perceptual * terms["perceptual"]
        base = ws.mean(1, keepdim=True)
        loss = loss + 2e-3 * (ws - base).square().mean() + 1e-4 * base.square().mean()
        if config.weight_identity and self.state["step"] % config.identity_every == 0:
            half = max(1, config.batch // 2)
            with torch.no_grad():
                wanted = self.identity(target[:half])
            found = self.identity(pictures[:half])
            terms["identity"] = 1 - (found * wanted).sum(1).mean()
            loss = loss + config.weight_identity * config.identity_every * terms["identity"]
        if self.control_losses is not None:
            last = slice(-config.trial_faces, None)
            more, cost = self.control_losses(
                self.model, identity.part(last), ws[last], [s[last] for s in styles],
                pictures[last], step=self.state["step"], dtype=self.dtype,
            )  # fmt: skip
            terms, loss = terms | more, loss + cost
        if config.weight_adversarial:
            terms["adversarial"] = self.adversary.loss(pictures)
            loss = loss + config.weight_adversarial * terms["adversarial"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        if config.weight_adversarial:
            terms["discriminator"] = self.adversary.step(
                pictures.detach(), target, rate=rate, step=self.state["step"]
            )
            self.state["augment"] = self.adversary.augment.probability
            terms["augment"] = torch.tensor(self.state["augment"])
        step = self.state["step"]
        update_average(self.average, self.model, min(config.ema, (1 + step) / (20 + step)))
        return {name: float(value.detach()) for name, value in terms.items()}

    def rate(self, step: int, *, seconds_left: float) -> float:
        """Return the factor of the learning rates at a step of this run: a linear warm-up over 200
        steps and, if configured, a linear decay to 5 % at the end."""
        config = self.config
        rate = min(1.0, (step + 1 / config.batch) / 200)
        if config.anneal_minutes:
            rate *= max(0.05, min(1.0, seconds_left / (60 * config.anneal_minutes)))
        if config.anneal_steps:
            rate *= max(0.05, min(1.0, (config.steps - step) / config.anneal_steps))
        return rate

    def run(self) -> None:
        """Train until the limit or a signal, saving every few minutes."""
        stop: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: stop.append(number))
        start = last_report = last_save = last_validation = time.monotonic()
        first_images, first_step = self.state["images"], self.state["step"]
        sums: dict[str, tuple[float, int]] = {}
        limit = self.config.minutes * 60
        last_step = first_step + self.config.steps if self.config.steps else None
        while not stop and time.monotonic() - start < limit and self.state["step"] != last_step:
            began = time.monotonic()
            rate = self.rate(self.state["step"] - first_step, seconds_left=limit - began + start)
            for name, value in self.step(rate).items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (total + value, count + 1)
            self.state["step"] += 1
            self.state["images"] += self.config.batch
            now = time.monotonic()
            self.state["seconds"] += now - began
            if now - last_report > 60:
                speed = (self.state["images"] - first_images) / (now - start)
                means = " ".join(f"{name} {t / n:.4f}" for name, (t, n) in sums.items())
                print(f"{self.state['images']} images, {speed:.1f}/s: {means}", flush=True)
                if self.control_losses is not None:
                    self.control_losses.report()
                last_report, sums = now, {}
            if now - last_save > 180:
                self.save()
                last_save = now
            if now - last_validation > 600:
                self.state["log"].append(validate(self))
                last_validation = time.monotonic()
        self.save()
        self.state["log"].append(validate(self))
        self.save()


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("packs", "teachers", "out", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="bundle to start from, without a checkpoint")
    parser.add_argument("--lpips-heads", type=Path, help="lpips v0.1 squeeze.pth, for validation")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    for field, default in asdict(TrainConfig()).items():
        flag = "--" + OPTIONS.get(field, field.replace("_", "-"))
        parser.add_argument(flag, dest=field, type=type(default), default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = TrainConfig(**{name: getattr(args, name) for name in asdict(TrainConfig())})
    print(json.dumps(asdict(config)), flush=True)
    np.random.seed(config.seed)
    Trainer(config, args).run()


if __name__ == "__main__":
    main()
