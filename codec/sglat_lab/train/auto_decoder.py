"""Train the embedded bundle as an auto-decoder: a free latent for each clip, shared weights.

    python -m sglat_lab.train.auto_decoder train --packs DIR --cache DIR --start BUNDLE --out DIR
    python -m sglat_lab.train.auto_decoder compact --checkpoint FILE --out FILE
    python -m sglat_lab.train.auto_decoder export --checkpoint FILE --packs DIR --cache DIR \
        --start BUNDLE --out BUNDLE

Latents are trained together with generator, controls, pose flow and motion estimator (Bojanowski et
al. 2018, https://arxiv.org/abs/1707.05776). Motion is estimated from landmarks alone, so that a
control has the same meaning for every person. `train` continues from a checkpoint in its output
folder. `export` writes the averaged weights as a bundle, without the latents.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sglat.bundles.bundle import load_bundle
from sglat.encoder.optim import FactorAdam
from sglat.errors import BundleError
from sglat.files import atomic_file
from sglat_lab.train.auto_decoder_losses import (
    AutoDecoderConfig,
    ClipPeople,
    PeopleLosses,
    StepBatch,
    Terms,
    reference_rows,
)
from sglat_lab.train.bundle_fits import fit_motions, with_mapping
from sglat_lab.train.data import FaceSampler, prepare
from sglat_lab.train.export import export, read_compact, write_compact
from sglat_lab.train.mini_model import MiniModel, load_start, update_average


class PeopleTrainer:
    """Model, averaged model, persons, optimisers and random states; saves and resumes."""

    def __init__(
        self,
        config: AutoDecoderConfig,
        *,
        packs: Path,
        cache: Path,
        start: Path,
        out: Path,
        compact: Path | None = None,
        device: torch.device | str = "cpu",
        threads: int = 1,
    ) -> None:
        """Resume from a checkpoint in `out`, or start from a compact copy or a bundle's weights.

        Raises:
            SystemExit: a checkpoint or a bundle that does not load.
        """
        self.config, self.out, self.device = config, out, torch.device(device)
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        faces = prepare(packs, cache, 128)
        self.sampler = FaceSampler(faces, packs, device=self.device, seed=config.seed)
        self.references = reference_rows(self.sampler)
        self.pool = ThreadPoolExecutor(threads)
        self.model = MiniModel.of_size(128).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        generator = self.model.generator.config
        self.people = ClipPeople(len(self.sampler.clips), generator.num_ws, generator.style_dim)
        self.people.to(self.device)
        self.step_number, self.seconds = 0, 0.0
        stored = self._stored()
        if stored is None:
            try:
                load_start(self.model, start)
            except (BundleError, ValueError) as error:
                raise SystemExit(f"cannot start from {start}: {error}") from error
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.losses = PeopleLosses(
            config, self.model, self.people, device=self.device,
            frozen=copy.deepcopy(self.average.generator),
        )  # fmt: skip
        if stored is None:
            self.people.start(self.model, self.sampler, config.seed)
        if stored is None and compact is not None:
            self._begin(compact)
        if config.rank:
            self.people.add_deltas(self.model.generator, config.rank)
        self.optimizer, self.optimizer_codes = self._optimizers()
        self.optimizer_deltas = self._delta_optimizer()
        if stored is not None:
            try:
                self._restore(stored)
            except (KeyError, RuntimeError, ValueError) as error:
                raise self._unusable(error) from error

    def _optimizers(self) -> tuple[torch.optim.Adam, torch.optim.Adam]:
        model, config = self.model, self.config
        motion = [*model.pose_flow.parameters(), *model.estimator.parameters()]
        groups = [
            {"params": list(model.generator.parameters()), "base": config.rate_generator},
            {"params": [model.directions], "base": config.rate_directions},
            {"params": motion, "base": config.rate_motion},
            {"params": list(model.inverter.parameters()), "base": config.rate_inverter},
        ]
        codes = [{"params": list(self.people.codes), "base": config.rate_codes}]
        return (
            torch.optim.Adam(groups, lr=1.0, betas=(0.0, 0.99), fused=True),
            torch.optim.Adam(codes, lr=1.0, betas=(0.9, 0.99)),
        )

    def _delta_optimizer(self) -> FactorAdam | None:
        if not self.config.rank:
            return None
        dense, factors = self.people.delta_groups()
        groups = [
            {"params": dense, "base": self.config.rate_delta_dense},
            {"params": factors, "base": self.config.rate_delta_factors, "is_factor": True},
        ]
        return FactorAdam(groups, lr=1.0, betas=(0.9, 0.95))

    @property
    def checkpoint_path(self) -> Path:
        """Return where the state of the run is kept."""
        return self.out / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint; a cut during writing leaves the previous one."""
        stored: dict[str, Any] = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "codes": [code.detach() for code in self.people.codes],
            "optimizer": self.optimizer.state_dict(),
            "optimizer_codes": self.optimizer_codes.state_dict(),
            "step": self.step_number,
            "seconds": self.seconds,
            "random": json.dumps(self.sampler.random.bit_generator.state),
            "random_reader": self.losses.meter.random.get_state(),
        }
        if self.optimizer_deltas is not None:
            stored["deltas"] = self.people.deltas.state_dict()
            stored["is_pointed"] = self.people.is_pointed
            for state in self.optimizer_deltas.state.values():
                state.setdefault("step", torch.zeros(()))  # Adam does not restore without one
            stored["optimizer_deltas"] = self.optimizer_deltas.state_dict()
        write_checkpoint(stored, self.checkpoint_path)

    def _unusable(self, error: Exception) -> SystemExit:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        return SystemExit(f"cannot resume from {self.checkpoint_path}: {reason}")

    def _stored(self) -> dict[str, Any] | None:
        if not self.checkpoint_path.exists():
            return None
        try:
            stored: dict[str, Any] = torch.load(
                self.checkpoint_path, map_location=self.device, weights_only=True
            )
        except Exception as error:  # torch raises its own classes, zip's and pickle's
            raise self._unusable(error) from error
        return stored

    def _begin(self, path: Path) -> None:
        """Take weights, codes and step of a compact copy; optimisers start anew."""
        stored = read_compact(path)
        self.model.load_state_dict(stored["average"])
        self.average.load_state_dict(stored["average"])
        self._take_codes(stored["codes"])
        self.step_number = stored["step"]

    def _take_codes(self, codes: list[Tensor]) -> None:
        with torch.no_grad():
            for code, value in zip(self.people.codes, codes, strict=True):
                code.copy_(value)

    def _restore(self, stored: dict[str, Any]) -> None:
        self.model.load_state_dict(stored["model"])
        self.average.load_state_dict(stored["average"])
        self._take_codes(stored["codes"])
        pairs = [(self.optimizer, "optimizer"), (self.optimizer_codes, "optimizer_codes")]
        rank = stored["config"]["rank"]
        if self.optimizer_deltas is not None and rank == self.config.rank:  # else they start anew
            self.people.deltas.load_state_dict(stored["deltas"])
            self.people.is_pointed = list(stored["is_pointed"])
            pairs.append((self.optimizer_deltas, "optimizer_deltas"))
        for optimizer, name in pairs:
            bases = [group["base"] for group in optimizer.param_groups]
            optimizer.load_state_dict(stored[name])
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["base"] = base
        self.step_number, self.seconds = stored["step"], stored["seconds"]
        self.sampler.random.bit_generator.state = json.loads(stored["random"])
        self.losses.meter.random.set_state(stored["random_reader"].cpu())

    def step(self) -> dict[str, float]:
        """Take one optimisation step and return the terms of the loss."""
        rate = self.config.rate(self.step_number)
        for optimizer in (self.optimizer, self.optimizer_codes, self.optimizer_deltas):
            for group in optimizer.param_groups if optimizer is not None else ():
                group["lr"] = group["base"] * rate
        batch = self.losses.draw(self.sampler, self.references, self.step_number)
        for place in batch.with_deltas:
            self.losses.point_factors(batch, place)
        parameters = self._parameters(batch)
        jobs = [self.losses.clips, self.losses.stills_and_swaps]
        # two threads with one intra-op thread each synchronise once a step, not at every
        # operation: on a busy machine that is twice as fast as two intra-op threads
        results = list(self.pool.map(lambda job: _gradients(job(batch), parameters), jobs))
        for parameter, *parts in zip(parameters, *[found for found, _ in results], strict=True):
            present = [part for part in parts if part is not None]
            parameter.grad = sum(present[1:], present[0]) if present else None
        self._update(parameters)
        terms = {name: value for _, found in results for name, value in found.items()}
        return {name: float(value.detach()) for name, value in terms.items()}

    def _parameters(self, batch: StepBatch) -> list[torch.nn.Parameter]:
        """Return the shared weights, and the codes and deltas of a step's persons."""
        parameters = list(self.model.parameters())
        parameters += [self.people.codes[person] for person in batch.people]
        for place in batch.with_deltas:
            parameters += self.people.deltas_of(batch.people[place]).parameters()
        return parameters

    def _update(self, parameters: list[torch.nn.Parameter]) -> None:
        for optimizer in (self.optimizer, self.optimizer_codes, self.optimizer_deltas):
            if optimizer is not None:
                optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        self.step_number += 1
        # early on, the average reaches over the last tenth of the run
        decay = min(self.config.ema, 1 - 1 / (10 + self.step_number / 10))
        update_average(self.average, self.model, decay)

    def run(
        self,
        *,
        minutes: float = 0.0,
        steps: int = 0,
        save_seconds: float = 240.0,
        snapshot_every: int = 0,
    ) -> None:
        """Train until a limit of this run or a signal, saving every few minutes.

        Args:
            minutes: of wall time; 0: no limit.
            steps: of this run; 0: no limit.
            save_seconds: between two checkpoints.
            snapshot_every: steps between two compact copies beside the checkpoint; 0: none.
        """
        stop: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: stop.append(number))
        begin = last_save = last_report = time.monotonic()
        last_step = self.step_number + steps if steps else None
        window: list[dict[str, float]] = []
        while not stop and self.step_number != last_step:
            began = time.monotonic()
            if minutes and began - begin > 60 * minutes:
                break
            window.append(self.step())
            now = time.monotonic()
            self.seconds += now - began
            if now - last_report > 60:
                self._report(window)
                last_report, window = now, []
            if now - last_save > save_seconds:
                self.save()
                last_save = now
            if snapshot_every and self.step_number % snapshot_every == 0:
                write_compact(self.state(), self.out / f"{self.step_number:06d}.safetensors")
        self.save()

    def _report(self, window: list[dict[str, float]]) -> None:
        names = {name for terms in window for name in terms}
        means = {
            name: round(float(np.mean([t[name] for t in window if name in t])), 4)
            for name in sorted(names)
        }
        record = {
            "step": self.step_number, "minutes": round(self.seconds / 60, 1),
            "at": time.strftime("%H:%M", time.gmtime()), "steps": len(window), **means,
        }  # fmt: skip
        line = json.dumps(record)
        print(line, flush=True)
        with (self.out / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def state(self) -> dict[str, Any]:
        """Return what a compact copy keeps: averaged weights, codes, step and config."""
        return {
            "config": asdict(self.config), "average": self.average.state_dict(),
            "codes": [code.detach() for code in self.people.codes], "step": self.step_number,
        }  # fmt: skip


def _gradients(
    result: tuple[Tensor, Terms], parameters: list[torch.nn.Parameter]
) -> tuple[tuple[Tensor | None, ...], Terms]:
    """Return the gradient of a loss for each parameter, None where it has none, and the terms."""
    loss, terms = result
    return torch.autograd.grad(loss, parameters, allow_unused=True), terms


def write_checkpoint(stored: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; a cut during writing leaves the previous one."""
    with atomic_file(path, force=True) as file:
        torch.save(stored, file)


def export_average(stored: dict[str, Any], start: Path, folder: Path, sampler: FaceSampler) -> None:
    """Write a bundle of the averaged weights, and a motion bank in its controls.

    All other parts are those of the starting bundle. So is the mapping network; it and the random
    identities can be fitted to the new weights by `sglat_lab.train.bundle_fits`.

    Args:
        stored: a checkpoint, or a compact copy as `read_compact` returns it.
        start: bundle folder.
        folder: of the new bundle; replaced if it exists.
        sampler: training pictures, for the unit of the controls.
    """
    model = MiniModel.of_size(128)
    model.load_state_dict(stored["average"])
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(start, folder)
    old = load_bundle(start)
    model.generator = with_mapping(model.generator, old.config.mapping_layers)
    model.generator.mapping.load_state_dict(old.generator.mapping.state_dict())
    export(model, folder, sampler.label_sample(), name=old.name)
    fit_motions(load_bundle(folder), sampler)


def main() -> None:
    """Parse the arguments; train, export or compact."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train, to_bundle, shrink = (
        commands.add_parser(name) for name in ("train", "export", "compact")
    )
    for command in (train, to_bundle):
        command.add_argument("--packs", type=Path, required=True)
        command.add_argument("--cache", type=Path, required=True)
        command.add_argument("--start", type=Path, required=True, help="bundle folder")
    for command in (train, to_bundle, shrink):
        command.add_argument("--out", type=Path, required=True)
    for command in (to_bundle, shrink):
        command.add_argument("--checkpoint", type=Path, required=True)
    for name, default in (("minutes", 0.0), ("steps", 0), ("snapshot-every", 0)):
        train.add_argument(f"--{name}", type=type(default), default=default)
    train.add_argument("--threads", type=int, default=2)
    train.add_argument("--device", default="cpu")
    train.add_argument("--compact", type=Path, help="compact copy to begin from")
    for field, value in asdict(AutoDecoderConfig()).items():
        train.add_argument("--" + field.replace("_", "-"), type=type(value), default=value)
    args = parser.parse_args()
    if args.command == "train":
        torch.set_num_threads(max(1, args.threads // 2))
        config = AutoDecoderConfig(
            **{name: getattr(args, name) for name in asdict(AutoDecoderConfig())}
        )
        trainer = PeopleTrainer(
            config, packs=args.packs, cache=args.cache, start=args.start, out=args.out,
            compact=args.compact, device=args.device, threads=min(2, args.threads),
        )  # fmt: skip
        print(json.dumps({"step": trainer.step_number, **asdict(config)}), flush=True)
        trainer.run(minutes=args.minutes, steps=args.steps, snapshot_every=args.snapshot_every)
        return
    if args.command == "export" and args.checkpoint.suffix == ".safetensors":
        stored = read_compact(args.checkpoint)
    else:
        stored = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    if args.command == "compact":
        write_compact(stored, args.out)
        return
    faces = prepare(args.packs, args.cache, 128)
    sampler = FaceSampler(faces, args.packs, device=torch.device("cpu"), seed=0)
    export_average(stored, args.start, args.out, sampler)


if __name__ == "__main__":
    main()
