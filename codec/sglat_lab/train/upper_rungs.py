"""Train the generator's layers at 256 and 512 px on top of its frozen layers up to 128 px.

    python -m sglat_lab.train.upper_rungs people --packs DIR --cache DIR --bundle BUNDLE --out DIR
    python -m sglat_lab.train.upper_rungs train --people DIR --packs DIR --bundle BUNDLE --out DIR
    python -m sglat_lab.train.upper_rungs export --checkpoint FILE --bundle BUNDLE --out BUNDLE

`people` tunes the generator on every clip and on some single pictures of the 512 px pack, as the
encoder does, and keeps the features at 128 px: detail is then learned where the picture at 128 px
is right. `train` looks for layers that are quickly tuned to anybody: it tunes them to one person
after another by the encoder's own steps, and moves them part of the way each time (Reptile: Nichol
et al. 2018, https://arxiv.org/abs/1803.02999). It continues from a checkpoint.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle, load_bundle, with_rows
from sglat.bundles.manifest import UPPER_ROLE, write_part
from sglat.decoder.synthesizer import Person, Synthesizer, call_with
from sglat.encoder.detail import DetailConfig, DetailTuner, Windows
from sglat.encoder.losses import TargetLoss
from sglat.encoder.tune import TuneConfig, Tuner, tune
from sglat.encoder.weight_deltas import DeltaConfig, WeightDeltas
from sglat.files import atomic_file
from sglat.networks.face_points import feature_weights
from sglat.networks.stylegan2 import StyledConv, ToRGB, UpperLayers
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.train.data import FaceSampler, prepare, read_pictures
from sglat_lab.train.export import LICENCE, SOURCE, halved

BASE: Final = 128
"""Pixels of the rung whose layers stay as they are."""
SIZE: Final = 512
PACK: Final = "faces512"
_LEAST_DETAIL: Final = 0.9  # of a picture, as the pack's README advises

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@dataclass(frozen=True, kw_only=True)
class UpperConfig:
    """Settings of a run; stored in its checkpoint."""

    people: int = 120
    """Persons tuned one after another."""
    steps: int = 40
    """Of each."""
    rate: float = 0.4
    """Share of the way that the layers move to a tuned person; falls to a tenth of it."""
    still_share: float = 0.25
    """Probability of a person of a single picture."""
    seed: int = 1


def new_layers(base: GeneratorConfig) -> UpperLayers:
    """Return layers that continue a generator of 128 px to 512 px.

    The convolutions start at random under unit styles, the ToRGB layers at 0: pictures are those of
    128 px, upsampled.
    """
    channels = (*base.channels, *GeneratorConfig.mini(SIZE).channels[len(base.channels) :])
    shape = replace(base, resolution=SIZE, channels=channels).to_json()
    upper = UpperLayers(base=BASE, **shape)
    with torch.no_grad():
        for layer in upper.layers.values():
            assert isinstance(layer, StyledConv | ToRGB)
            layer.affine.weight.zero_()
            if isinstance(layer, ToRGB):
                layer.weight.zero_()
                layer.bias.zero_()
    return upper


# People


@dataclass(frozen=True, kw_only=True)
class Fine:
    """The 512 px pack beside the rows of the 128 px cache."""

    names: list[str]
    rows: NDArray[np.int64]
    """Of each picture in the cache."""
    clips: NDArray[np.str_]
    """Clip of each picture, empty for a single one."""
    detail: NDArray[np.float32]


def read_fine(packs: Path, labels: dict[str, NDArray[np.generic]]) -> Fine:
    """Return the training pictures of the 512 px pack without flaws."""
    with np.load(packs / PACK / "index.npz") as index:
        good = (index["split"] == "train") & ~index["flaw"] & (index["detail"] >= _LEAST_DETAIL)
        names, detail = index["name"][good], index["detail"][good]
    place = {str(name): row for row, name in enumerate(labels["name"])}
    rows = np.array([place[str(name)] for name in names])
    return Fine(
        names=[str(n) for n in names], rows=rows, clips=labels["clip"][rows].astype(np.str_),
        detail=detail,
    )  # fmt: skip


def tune_person(
    bundle: Bundle, sampler: FaceSampler, rows: NDArray[np.int64], steps: int, batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Tune a person on all its pictures and return features, pictures and latent at 128 px.

    Returns:
        Features `[N, C, 128, 128]` and pictures `[N, 3, 128, 128]` in half precision, and the
        latent `[L, D]`.
    """
    faces = sampler.batch(rows)
    synthesizer = Synthesizer.of(bundle)
    estimator = bundle.module("estimator")
    with torch.no_grad():
        values = estimator(faces.points, faces.blendshapes, faces.pose_degrees)
        motion = torch.cat([faces.pose_degrees, values], 1)
        middle = (motion - motion.median(0).values)[:, 2:].square().sum(1).argmin()
        ws = bundle.inverter(faces.images[middle : middle + 1])[0]
    config = TuneConfig(
        steps=steps, batch=min(batch, len(rows)), quantize_from=2.0, cut_chance=0.0,
        deltas=DeltaConfig(ranks=(8, 24)),
    )  # fmt: skip
    pixel_weights = feature_weights(faces.points, BASE, config.loss.feature_weight)
    loss = TargetLoss(faces.images, pixel_weights, bundle.perceptual, None, config.loss)
    tuner = Tuner(
        synthesizer, Person(ws=ws, neutral=motion[middle]), faces.images, motion, loss, config,
        budget_bits=1e9,
    )  # fmt: skip
    result = tune(tuner)
    found = []
    with torch.no_grad():
        weights = result.deltas.weights()
        styles = synthesizer.styles(result.person, result.motion)
        for part in torch.arange(len(rows)).split(4):
            chosen = [style[part] for style in styles]
            found.append(call_with(bundle.generator, weights, "rung", chosen))
    x, image = (torch.cat(parts).half() for parts in zip(*found, strict=True))
    return x, image, result.person.ws


Packs = Annotated[Path, typer.Option(help="folder of the training packs")]
Cache = Annotated[Path, typer.Option(help="folder of decoded pictures")]
Start = Annotated[Path, typer.Option("--bundle", help="bundle folder")]
Out = Annotated[Path, typer.Option(help="folder to write")]


@app.command()
def people(
    packs: Packs,
    cache: Cache,
    bundle: Start,
    out: Out,
    stills: Annotated[int, typer.Option(help="single pictures, the finest first")] = 300,
    clip_steps: int = 200,
    still_steps: int = 50,
) -> None:
    """Tune people and keep their features; people already there are left as they are."""
    out.mkdir(parents=True, exist_ok=True)
    faces = prepare(packs, cache, BASE)
    sampler = FaceSampler(faces, packs, device=torch.device("cpu"), seed=0)
    fine, parts = read_fine(packs, faces.labels), load_bundle(bundle)
    singles = np.flatnonzero(fine.clips == "")
    singles = singles[np.argsort(-fine.detail[singles], kind="stable")][: 2 * stills : 2]
    jobs = [np.flatnonzero(fine.clips == clip) for clip in np.unique(fine.clips[fine.clips != ""])]
    jobs += [singles[at : at + 1] for at in range(len(singles))]
    for chosen in jobs:
        path = out / f"{fine.names[chosen[0]]}.pt"
        if path.exists():
            continue
        is_clip = len(chosen) > 1
        began = time.monotonic()
        x, image, ws = tune_person(
            parts, sampler, fine.rows[chosen], clip_steps if is_clip else still_steps, 4
        )
        wanted = sampler.batch(fine.rows[chosen]).images
        error = (image.float() - wanted).square().mean((1, 2, 3))
        stored = {
            "features": x.contiguous(memory_format=torch.channels_last), "image": image, "ws": ws,
            "names": [fine.names[k] for k in chosen], "is_clip": is_clip,
        }  # fmt: skip
        with atomic_file(path, force=True) as file:
            torch.save(stored, file)
        decibels = float((10 * torch.log10(4 / error)).mean())
        print(f"{path.stem} {len(chosen)} {decibels:.2f} dB {time.monotonic() - began:.0f} s",
              flush=True)  # fmt: skip


# Training


@dataclass(frozen=True, kw_only=True)
class FinePerson:
    """A person as tuned at 128 px, and its pictures at 512 px."""

    ws: Tensor
    """Latent with all rows, `[L, D]`."""
    windows: Windows
    is_clip: bool

    @classmethod
    def read(cls, path: Path, packs: Path) -> FinePerson:
        """Read what `people` wrote of one person."""
        stored = torch.load(path, mmap=True)
        pictures = np.stack(list(read_pictures(packs / PACK, stored["names"], SIZE)))
        targets = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        windows = Windows(
            features=stored["features"], images=stored["image"].float(), targets=targets,
            weights=torch.ones(len(targets), 1, SIZE, SIZE), masks=None,
        )  # fmt: skip
        num_ws = GeneratorConfig.mini(SIZE).num_ws
        return cls(
            ws=with_rows(stored["ws"][None].float(), num_ws)[0], windows=windows,
            is_clip=stored["is_clip"],
        )  # fmt: skip


class UpperTrainer:
    """Upper layers and random state; saves and resumes."""

    def __init__(
        self, config: UpperConfig, people: Path, packs: Path, base: Bundle, out: Path
    ) -> None:
        """Resume from a checkpoint in `out`, or start with new layers.

        Raises:
            SystemExit: no people; a checkpoint that does not load.
        """
        self.config, self.packs, self.out = config, packs, out
        out.mkdir(parents=True, exist_ok=True)
        self.files = sorted(people.glob("*.pt"))
        if not self.files:
            raise SystemExit(f"expected tuned people in {people}, found none: run `people` first")
        torch.manual_seed(config.seed)
        self.layers = new_layers(base.config)
        self.generator = self.layers.on(base.generator)
        self.perceptual = load_bundle("mini").perceptual
        self.random = np.random.default_rng(config.seed)
        self.done = 0
        is_clip = [torch.load(path, mmap=True)["is_clip"] for path in self.files]
        self.clips, self.stills = np.flatnonzero(is_clip), np.flatnonzero(~np.array(is_clip))
        if self.checkpoint_path.exists():
            self._restore()

    @property
    def checkpoint_path(self) -> Path:
        """Return where the state of the run is kept."""
        return self.out / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint; a cut during writing leaves the previous one."""
        stored = {
            "layers": self.layers.state_dict(), "done": self.done, "config": asdict(self.config),
            "random": json.dumps(self.random.bit_generator.state),
        }  # fmt: skip
        with atomic_file(self.checkpoint_path, force=True) as file:
            torch.save(stored, file)

    def _restore(self) -> None:
        try:
            stored = torch.load(self.checkpoint_path, weights_only=True)
            self.layers.load_state_dict(stored["layers"])
            self.random.bit_generator.state = json.loads(stored["random"])
            self.done = int(stored["done"])
        except Exception as error:  # torch raises its own classes, zip's and pickle's
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise SystemExit(f"cannot resume from {self.checkpoint_path}: {reason}") from error

    def step(self) -> tuple[float, float]:
        """Tune to one person, move the layers, and return the losses before and after."""
        config = self.config
        is_still = len(self.stills) and self.random.random() < config.still_share
        chosen = self.random.choice(self.stills if is_still or not len(self.clips) else self.clips)
        person = FinePerson.read(self.files[chosen], self.packs)
        steps = DetailConfig(
            resolution=SIZE, steps=2 * config.steps, quantize_from=2.0, steps_stay_from=2.0,
            seed=int(self.random.integers(1 << 30)),
        )  # fmt: skip
        deltas = WeightDeltas(self.generator, DeltaConfig(ranks=(steps.rank,)), above=BASE)
        deltas.start_whole()
        tuner = DetailTuner(
            steps, self.generator, self.perceptual, person.ws, deltas, person.windows,
            budget_bits=1e9,
        )  # fmt: skip
        losses = [tuner.step() for _ in range(config.steps)]
        share = config.rate * max(0.1, 1 - self.done / config.people)
        with torch.no_grad():
            named = dict(self.generator.named_parameters())
            for name, value in deltas.weights().items():
                named[name].lerp_(value, share)
        self.done += 1
        return float(np.mean(losses[:5])), float(np.mean(losses[-5:]))

    def run(self, *, people: int = 0) -> None:
        """Tune to the last person, to a signal, or to a number of people in this run."""
        stop: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: stop.append(number))
        last = min(self.config.people, self.done + people) if people else self.config.people
        while not stop and self.done < last:
            before, after = self.step()
            record = {"person": self.done, "before": round(before, 4), "after": round(after, 4)}
            print(json.dumps(record), flush=True)
            if self.done % 10 == 0:
                self.save()
        self.save()


@app.command()
def train(
    people: Annotated[Path, typer.Option(help="folder that `people` wrote")],
    packs: Packs,
    bundle: Start,
    out: Out,
    count: Annotated[int, typer.Option(help="persons, one after another")] = 120,
    steps: Annotated[int, typer.Option(help="of each")] = 40,
) -> None:
    """Train the upper layers, from a checkpoint if there is one."""
    config = UpperConfig(people=count, steps=steps)
    print(json.dumps(asdict(config)), flush=True)
    UpperTrainer(config, people, packs, load_bundle(bundle), out).run()


# Export


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Option(help="of `train`")],
    bundle: Start,
    out: Annotated[Path, typer.Option(help="bundle folder; replaced if it exists")],
) -> None:
    """Write a bundle with the trained upper layers; all other parts are those of `bundle`."""
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    parts = load_bundle(bundle)
    layers = new_layers(parts.config)
    layers.load_state_dict(stored["layers"])
    if out.resolve() != bundle.resolve():
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(bundle, out)
    write_part(
        out, name=parts.name, role=UPPER_ROLE, kind="stylegan2_upper",
        tensors=halved(layers.state_dict()), config={"base": BASE, **layers.config.to_json()},
        licence=LICENCE, source=SOURCE,
    )  # fmt: skip


if __name__ == "__main__":
    app()
