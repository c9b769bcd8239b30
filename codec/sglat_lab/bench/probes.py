"""Probes: functions of a clip and the tools that return figures.

`quality` is what the others refer to and is always measured. Probes of one clip are measured in
worker processes; those of several clips (`ON_SEVERAL`) after them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Final, TypeVar

import numpy as np

import sglat
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.errors import UsageError
from sglat.files import Closable
from sglat_lab.bench.anchors import ANCHORS, AnchorCodec, refusal
from sglat_lab.bench.clip_bench import FULL, QUICK, ClipBench, Effort
from sglat_lab.bench.encodes import ClipFiles
from sglat_lab.bench.file_variants import corruption
from sglat_lab.bench.harness import ToolConfig, digest
from sglat_lab.bench.solvers import compare_solvers, piece_of
from sglat_lab.measure.face_signals import compare
from sglat_lab.measure.judges import (
    Judges,
    embeddings,
    find_teachers,
    frechet_distance,
    identity_losses,
    load_judges,
    pooled_features,
)
from sglat_lab.measure.landmarks import EmbeddedLandmarker, Landmarker, MediaPipeLandmarker
from sglat_lab.measure.rates import MINUTE, Version, bd_table

Figures = dict[str, Any]
Bench = TypeVar("Bench", bound=ClipBench)


class Tools(Closable):
    """The bundle, the measuring networks and the anchors that are at hand.

    Args:
        config: which.
    """

    def __init__(self, config: ToolConfig) -> None:
        self.config = config
        self.effort: Effort = QUICK if config.is_quick else FULL
        self.judges: Judges = load_judges(find_teachers(config.teachers), heads=config.heads)
        file = self.judges.landmarker
        self.landmarker: Landmarker | None = None if file is None else MediaPipeLandmarker(file)
        self.bundle: Bundle = load_bundle(config.bundle, config.device)

    @property
    def any_landmarker(self) -> Landmarker:
        """MediaPipe where it is at hand, else the bundle's own landmark network."""
        return self.landmarker or EmbeddedLandmarker(self.bundle.faces)

    @cached_property
    def refused(self) -> dict[str, str]:
        """Anchors that cannot code the bundle's crops, and why."""
        reasons = {codec.name: refusal(codec, self.bundle.resolution) for codec in ANCHORS}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    @property
    def anchors(self) -> list[AnchorCodec]:
        """Anchors that are at hand."""
        return [codec for codec in ANCHORS if codec.name not in self.refused]

    def clip(self, files: ClipFiles) -> ClipBench:
        """Return the bench of a clip."""
        return self.clip_as(files, ClipBench)

    def clip_as(self, files: ClipFiles, kind: type[Bench]) -> Bench:
        """Return the bench of a clip, of a kind with further measurements."""
        return kind(
            video=files.video, encoded=files.encoded, bundle=self.bundle, judges=self.judges,
            landmarker=self.landmarker, effort=self.effort, folder=self.config.out / "cache",
            work=files.work, others=dict(files.others),
        )  # fmt: skip

    def close(self) -> None:
        """Release the landmark network; MediaPipe cannot do so by itself while Python ends."""
        if self.landmarker is not None:
            self.landmarker.close()


def quality_probe(clip: ClipBench, tools: Tools) -> Figures:
    """Return our file, our other settings and the anchors at all rates and at ours."""
    ours = clip.ours()
    wanted = ours.cost.first_view(MINUTE)
    matched: Figures = {}
    curves: dict[str, list[Version]] = {"sglat": [*clip.our_curve(), ours]}
    for codec in tools.anchors:
        curves[codec.name] = clip.anchor_curve(codec)
        level, version = clip.match(codec, wanted)
        matched[codec.name] = version.to_json() | {"level": level}
    record = clip.encoded.with_suffix(".json")
    plain = {name: [v.to_json() for v in points] for name, points in curves.items()}
    signals = clip.reference.signals
    jitter = None
    if signals is not None:
        side = clip.bundle.resolution
        jitter = compare(signals, signals, side=side)["jitter_pixels"]
    return {
        "clip": clip.name,
        "frames": len(clip.parsed.motion.values),
        "frames_measured": len(clip.rows),
        "window": clip.window,
        "ours": ours.to_json(),
        "curves": plain,
        "at_our_rate": matched,
        "bd_rate": bd_table(plain),
        "source_jitter_pixels": jitter,
        "encode": json.loads(record.read_text()) if record.exists() else None,
    }


PROBES: Final[dict[str, Callable[[ClipBench, Tools], Figures]]] = {
    "quality": quality_probe,
    "rates": lambda clip, tools: {"rates": clip.rates()},
    "loss": lambda clip, tools: clip.loss(),
    "damage": lambda clip, tools: {
        "damage": corruption(clip.encoded, trials=clip.effort.damage_trials)
    },
}
"""Their figures are joined to the clip's record."""
ON_SEVERAL: Final = ("swap", "solvers", "speed", "frechet", "published")
"""Names of the probes of several clips."""


def chosen_probes(names: Sequence[str]) -> list[str]:
    """Return the names of probes to run, in order; none given: all.

    Raises:
        UsageError: there is no such probe.
    """
    known = [*PROBES, *ON_SEVERAL]
    unknown = set(names) - set(known)
    if unknown:
        raise UsageError(
            "no-probe", f"expected some of {', '.join(known)}, found {', '.join(sorted(unknown))}"
        )
    return [name for name in known if not names or name in (*names, "quality")]


def _kept_name(clip: ClipBench, probe: str) -> str:
    """Return the name under which figures are kept; other versions of the clip, another name."""
    return f"{probe}-{digest(*clip.others.values(), clip.work is not None)}"


def is_recorded(clip: ClipBench, names: Sequence[str]) -> bool:
    """Return whether nothing is left to measure."""
    return all(
        (clip.cache.folder / f"{_kept_name(clip, probe)}.json").exists()
        for probe in PROBES
        if probe in names
    )


def clip_record(clip: ClipBench, tools: Tools, names: Sequence[str]) -> Figures:
    """Return a clip's figures by all probes named, measured unless they were before."""
    record: Figures = {}
    for probe, measure in PROBES.items():
        if probe in names:
            name = _kept_name(clip, probe)
            record |= clip.cache.record(name, partial(measure, clip, tools))
    return record


def swap_name(puppet: ClipBench) -> str:
    """Return the name under which a swap onto a puppet is kept with its driver."""
    return f"swap-{puppet.cache.folder.name}"


def swap_record(tools: Tools, driver: ClipBench, puppet: ClipBench) -> dict[str, Any]:
    """Return what the driver's motion gives on the puppet, against playing the driver's video."""
    name = swap_name(puppet)

    def make() -> dict[str, Any]:
        path = driver.cache.folder / f"{name}.sglat"
        sglat.swap(motion=driver.encoded, identity=puppet.encoded, out=path, force=True)
        found: dict[str, Any] = {"driver": driver.name, "puppet": puppet.name}
        shown = driver.shown(path, name)
        identity = tools.judges.identity
        if identity is not None:
            look = embeddings(identity, puppet.reference.pictures).mean(0)
            look /= np.linalg.norm(look)
            for key, pictures in (
                ("identity_loss", shown),
                ("identity_loss_of_driver", driver.reference.pictures),
                ("identity_loss_of_puppet", puppet.reference.pictures),
            ):
                vectors = embeddings(identity, pictures)
                target = np.broadcast_to(look, vectors.shape)
                found[key] = float(identity_losses(vectors, target).mean())
        signals = driver.reference.signals
        if tools.landmarker is not None and signals is not None:
            side = driver.bundle.resolution
            for key, pictures in (
                ("", driver.shown_window(path, name)),
                ("own_", driver.shown_window(driver.encoded, "ours")),
            ):
                seen = compare(tools.landmarker.signals(pictures), signals, side=side)
                found |= {key + metric: value for metric, value in seen.items()}
        return found

    record: dict[str, Any] = driver.cache.record(name, make)
    return record


def solver_probe(tools: Tools, files: ClipFiles, count: int, epochs: int, steps: int) -> Figures:
    """Compare the solvers on the middle frames of a clip.

    Raises:
        UsageError: no work file, or no face on these frames.
    """
    clip = tools.clip(files)
    if files.work is None:
        raise UsageError("no-work-file", "expected a clip that was encoded in this run")
    first = max(0, (clip.window - count) // 2)
    span = slice(first, first + count)
    signals = clip.reference.signals
    if signals is None or not signals.is_found[span].all():
        raise UsageError("no-landmarks", "expected landmarks on the middle frames, found none")
    bundle = load_bundle(tools.config.bundle)  # one that inference mode has not touched
    piece = piece_of(
        files.encoded, files.work, bundle, np.array(clip.source[span]), signals.points[span], first
    )
    found = compare_solvers(piece, bundle, tools.judges, epochs=epochs, iterations=steps)
    return {"clip": clip.name, "first_frame": first, **found}


def frechet_probe(
    judges: Judges,
    clips: Sequence[ClipBench],
    codecs: Sequence[AnchorCodec],
    records: Sequence[Figures],
) -> Figures:
    """Return distances between the sets of all clips' frames, ours and the anchors' at our rate."""
    networks: dict[str, Callable[[Any], Any]] = {}
    identity, perceptual = judges.identity, judges.perceptual
    if identity is not None:
        networks["MobileFaceNet (128)"] = lambda p: embeddings(identity, p)
    if perceptual is not None:
        networks["SqueezeNet (512)"] = lambda p: pooled_features(perceptual, p)
    sets: dict[str, list[Any]] = {"sglat": [clip.shown(clip.encoded, "ours") for clip in clips]}
    for codec in codecs:
        levels = [record["at_our_rate"][codec.name]["level"] for record in records]
        sets[codec.name] = [
            clip.matched_pictures(codec, level)[0]
            for clip, level in zip(clips, levels, strict=True)
        ]
    source = np.concatenate([clip.reference.pictures for clip in clips])
    found: Figures = {}
    for name, network in networks.items():
        wanted = network(source)
        found[name] = {}
        for codec_name, parts in sets.items():
            try:
                shown = network(np.concatenate(parts))
                found[name][codec_name] = frechet_distance(shown, wanted)
            except UsageError as error:
                found[name][codec_name] = f"not measured: {error.message}"
    return found
