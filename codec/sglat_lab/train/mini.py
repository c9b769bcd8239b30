"""Train the embedded bundle: `python -m sglat_lab.train.mini --packs DIR --teachers DIR --out DIR`.

One resumable program for CPU and CUDA. Stage `autoencoder` learns pictures to W+ and back; stage
`manifold` renders every picture the way a file says it: the ID latent of one frame, the pose and
the 32 controls of another. Adversarial and identity terms switch on by weight.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
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
from sglat.networks.face_regions import feature_weights
from sglat_lab.measure.teachers import MobileFaceIdentity, SqueezePerceptual, load_lpips_heads
from sglat_lab.train.augment import AdaptiveAugment
from sglat_lab.train.batches import FaceSampler
from sglat_lab.train.config import TrainConfig, check
from sglat_lab.train.control_losses import Locality
from sglat_lab.train.data import FINE_FROM, prepare
from sglat_lab.train.discriminator import Discriminator
from sglat_lab.train.export import control_sigma
from sglat_lab.train.mini_model import FaceBatch, MiniModel
from sglat_lab.train.posing import Posing
from sglat_lab.train.start import grown, load_start


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
            faces,
            args.packs,
            device=self.device,
            seed=config.seed,
            still_share=config.still_share,
            far_share=config.far_share,
        )
        self.dtype = feature_type(config.precision, self.device)
        print(f"device {self.device}, features in {self.dtype}", flush=True)
        self.model = self._build()
        self.average = self._build().requires_grad_(False)
        self.discriminator = Discriminator(config.size).to(self.device)
        self.perceptual = SqueezePerceptual(
            args.teachers / "squeezenet1_1_features.npz",
            load_lpips_heads(args.lpips_heads) if args.lpips_heads else None,
        ).to(self.device)
        self.identity = MobileFaceIdentity(args.teachers / "mobilefacenet_id.onnx").to(self.device)
        self.optimizer = self._optimizer()
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.rate_generator * 0.8, betas=(0.0, 0.99)
        )
        self.state: dict[str, Any] = {"step": 0, "images": 0, "seconds": 0.0, "log": []}
        self._resume(args.start)
        self.augment = AdaptiveAugment(
            seed=config.seed + self.state["step"], probability=self.state.get("augment", 0.0)
        )
        self.locality, self.posing = self._make_trials()
        if config.compile == "on" or (config.compile == "auto" and self.device.type == "cuda"):
            self._compile()

    def _build(self) -> MiniModel:
        model = MiniModel.of_size(self.config.size)
        return model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _optimizer(self) -> torch.optim.Optimizer:
        model, config = self.model, self.config
        motion = [
            *model.pose_flow.parameters(),
            *model.estimator.parameters(),
            model.directions,
        ]
        groups = [
            {"params": list(model.generator.parameters()), "base": config.rate_generator},
            {"params": list(model.inverter.parameters()), "base": config.rate_inverter},
            {"params": motion, "base": config.rate_motion},
        ]
        has_fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(groups, lr=1.0, betas=(0.9, 0.99), fused=has_fused)

    def _compile(self) -> None:
        """Have the networks that take the time compiled, each for the few shapes it is given."""
        generator, perceptual = self.model.generator, self.perceptual
        compiled = partial(torch.compile, dynamic=False)
        generator.synthesize = compiled(generator.synthesize)  # type: ignore[method-assign]
        perceptual.features = compiled(perceptual.features)  # type: ignore[method-assign]
        for network in (self.model.inverter, self.identity):  # not the critic: twice derived
            network.compile(dynamic=False)

    @property
    def checkpoint_path(self) -> Path:
        return self.out / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint; a cut during writing leaves the previous one."""
        stored = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "state": self.state,
            "config": asdict(self.config),
        }
        with atomic_file(self.checkpoint_path, force=True) as file:
            torch.save(tree_map(_on_processor, stored), file)

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
        try:
            stored = torch.load(self.checkpoint_path, map_location="cpu", weights_only=True)
            is_smaller = stored["config"].get("size", 128) < self.config.size
            if is_smaller:  # the optimisers' moments are of other shapes: they start anew
                stored["model"] = grown(stored["model"], self.model)
                stored["average"] = grown(stored["average"], self.model)
            self.model.load_state_dict(stored["model"])
            self.average.load_state_dict(stored["average"])
            if not is_smaller:
                self.discriminator.load_state_dict(stored["discriminator"])
                self.optimizer.load_state_dict(stored["optimizer"])
                self.optimizer_d.load_state_dict(stored["optimizer_d"])
            state = stored["state"]
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise SystemExit(f"cannot resume from {self.checkpoint_path}: {reason}") from error
        for group, base in zip(self.optimizer.param_groups, self._bases(), strict=True):
            group["base"] = base
        self.state = state
        print(f"resumed at step {self.state['step']}, {self.state['images']} images", flush=True)

    def _bases(self) -> tuple[float, float, float]:
        c = self.config
        return c.rate_generator, c.rate_inverter, c.rate_motion

    def render(self, identity: FaceBatch, motion: FaceBatch) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return pictures, ID latents, and in stage `manifold` the StyleSpace vectors rendered."""
        model, config = self.model, self.config
        if config.stage == "autoencoder":
            with self._reduced():
                ws = model.inverter(motion.images).float()
            return model.generator(ws, resolution=config.side, dtype=self.dtype), ws, []
        with self._reduced():
            ws = model.inverter(identity.images).float()
        controls = model.controls_of(motion) - model.controls_of(identity)
        styles = model.styles(ws, identity.pose_degrees, motion.pose_degrees, controls)
        return model.generator.synthesize(styles, dtype=self.dtype), ws, styles

    def _make_trials(self) -> tuple[Locality | None, Posing | None]:
        config, seed = self.config, self.config.seed + self.state["step"]
        if config.stage != "manifold" or not (config.weight_locality or config.weight_pose):
            return None, None
        eyes = load_bundle("mini", self.device)
        locality = posing = None
        if config.weight_locality:
            with torch.no_grad():
                sigma = control_sigma(self.average, self.sampler.label_sample())
            locality = Locality(eyes.faces, sigma, seed=seed)
        if config.weight_pose:
            posing = Posing(eyes.module("faces_landmarks"), seed=seed)
        return locality, posing

    def _try(
        self, identity: FaceBatch, pictures: Tensor, ws: Tensor, styles: list[Tensor]
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """Return terms and weighted loss of trying controls and poses, in turns where both are."""
        config, count = self.config, self.config.trial_faces
        terms: dict[str, Tensor] = {}
        loss: Tensor | float = 0.0
        both = self.locality is not None and self.posing is not None
        turn, share = (self.state["step"] % 2, 2.0) if both else (-1, 1.0)
        if self.locality is not None and turn != 1:
            terms["locality"] = self.locality(
                self.model, [s[-count:] for s in styles], pictures[-count:], dtype=self.dtype
            )
            loss = loss + share * config.weight_locality * terms["locality"]
        if self.posing is not None and turn != 0:
            faces = identity.tail(count)
            terms["pose"], turned = self.posing(self.model, ws[-count:], faces, dtype=self.dtype)
            with torch.no_grad():
                wanted = self.identity(faces.images)
            terms["turned"] = 1 - (self.identity(turned) * wanted).sum(1).mean()
            loss = loss + share * config.weight_pose * terms["pose"]
            loss = loss + share * config.weight_identity * terms["turned"]
        return terms, loss

    def _reduced(self) -> AbstractContextManager[object]:
        """Return a context in which networks other than the generator compute as configured."""
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
        tried, cost = self._try(identity, pictures, ws, styles)
        terms |= tried
        loss = loss + cost
        if config.weight_adversarial:
            self.discriminator.requires_grad_(False)
            terms["adversarial"] = F.softplus(-self.discriminator(self.augment(pictures))).mean()
            loss = loss + config.weight_adversarial * terms["adversarial"]
            self.discriminator.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        if config.weight_adversarial:
            terms["discriminator"] = self._step_discriminator(pictures.detach(), target, rate)
            terms["augment"] = torch.tensor(self.augment.probability)
        self._update_average()
        return {name: float(value.detach()) for name, value in terms.items()}

    def _step_discriminator(self, fake: Tensor, real: Tensor, rate: float) -> Tensor:
        for group in self.optimizer_d.param_groups:
            group["lr"] = self.config.rate_generator * 0.8 * rate
        scores = self.discriminator(self.augment(real))
        self.augment.update(scores)
        self.state["augment"] = self.augment.probability
        loss = F.softplus(self.discriminator(self.augment(fake))).mean()
        loss = loss + F.softplus(-scores).mean()
        if self.state["step"] % 16 == 0:  # lazy R1, Karras et al. 2020, section 3.1
            real = self.augment(real[: max(4, len(real) // 2)]).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(
                self.discriminator(real).sum(), real, create_graph=True
            )
            penalty = gradient.square().sum((1, 2, 3)).mean()
            loss = loss + penalty * (0.5 * 16 * self.config.weight_r1)
        self.optimizer_d.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer_d.step()
        return loss.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        step = self.state["step"]
        decay = min(self.config.ema, (1 + step) / (20 + step))
        for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for stored, current in zip(self.average.buffers(), self.model.buffers(), strict=True):
            stored.copy_(current)

    def rate(self, step: int, *, seconds_left: float) -> float:
        """Return what scales the learning rates at a step of this run: a warm-up of 200 steps, and
        a fall to 5 % at the end where one is asked for."""
        config = self.config
        rate = min(1.0, (step + 1 / config.batch) / 200)
        if config.anneal_minutes:
            rate *= max(0.05, min(1.0, seconds_left / (60 * config.anneal_minutes)))
        if config.anneal_steps:
            rate *= max(0.05, min(1.0, (config.steps - step) / config.anneal_steps))
        return rate

    def run(self) -> None:
        """Train until the time is over or a signal arrives, saving every few minutes."""
        stop: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: stop.append(number))
        from sglat_lab.train.validate import validate

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
                if self.locality is not None:
                    print(f"local controls {self.locality.local_share():.2f}", flush=True)
                if self.posing is not None:
                    yaw, pitch = self.posing.error.tolist()
                    print(f"degrees missed: yaw {yaw:.1f}, pitch {pitch:.1f}", flush=True)
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


def _on_processor(value: object) -> object:
    return value.cpu() if isinstance(value, Tensor) else value


def as_fine(images: Tensor, is_fine: Tensor) -> Tensor:
    """Return images `[N, 3, H, W]`, those that are not fine `[N]` without the detail that the
    128 px they were made from cannot hold."""
    side = images.shape[-1]
    if side <= FINE_FROM or bool(is_fine.all()):
        return images
    coarse = F.interpolate(images, size=FINE_FROM, mode="area")
    coarse = F.interpolate(coarse, size=side, mode="bilinear", align_corners=False)
    return torch.where(is_fine[:, None, None, None], images, coarse)


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
        flag = "--" + field.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = TrainConfig(**{name: getattr(args, name) for name in asdict(TrainConfig())})
    print(json.dumps(asdict(config)), flush=True)
    np.random.seed(config.seed)
    Trainer(config, args).run()


if __name__ == "__main__":
    main()
