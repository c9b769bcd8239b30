"""The whole benchmark: every clip, what holds between clips, and the summary over clips."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from sglat import __version__
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.errors import SglatError, UsageError
from sglat.metrics import material
from sglat.metrics.anchors import ANCHORS, AnchorCodec, refusal
from sglat.metrics.circumstances import PACKAGES, command, commit, machine, package_version
from sglat.metrics.clip_bench import FULL, QUICK, ClipBench, Version
from sglat.metrics.distribution import frechet_distance
from sglat.metrics.judges import (
    Judges,
    embeddings,
    find_teachers,
    identity_losses,
    load_judges,
    pooled_features,
)
from sglat.metrics.measure import METRICS
from sglat.metrics.rates import MINUTE
from sglat.metrics.signals import Landmarker, compare
from sglat.metrics.speed import decode_speed
from sglat.metrics.summary import bd_table, summarize

VIDEO_SUFFIXES: Final = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured with what."""

    clips: Path
    """Folder of videos."""
    out: Path
    """Folder of results."""
    encoded: Path | None = None
    """Folder with `<clip>.sglat` made earlier; None: encode."""
    bundle: str = "mini"
    teachers: Path | None = None
    heads: Path | None = None
    """LPIPS v0.1 heads for SqueezeNet."""
    is_quick: bool = False
    device: str = "cpu"
    with_speed: bool = True


def clip_paths(folder: Path) -> list[Path]:
    """Return the videos of a folder.

    Raises:
        UsageError: none there.
    """
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise UsageError("no-clips", f"expected videos in {folder}, found none")
    return found


class Benchmark:
    """Runs everything; interrupted, the same call goes on.

    Args:
        config: what.
        tell: told of each step in a line.
    """

    def __init__(self, config: BenchConfig, tell: Callable[[str], None]) -> None:
        self.config = config
        self.tell = tell
        self.commit = commit()  # of the code that is loaded now, hours before the end
        self.effort = QUICK if config.is_quick else FULL
        self.judges: Judges = load_judges(find_teachers(config.teachers), heads=config.heads)
        self.landmarker = (
            None if self.judges.landmarker is None else Landmarker(self.judges.landmarker)
        )
        self.bundle: Bundle = load_bundle(config.bundle, config.device)
        self.clips: list[ClipBench] = []
        self.skipped: dict[str, str] = {}
        self.anchors: list[AnchorCodec] = []
        for codec in ANCHORS:
            reason = refusal(codec, self.bundle.resolution)
            if reason is None:
                self.anchors.append(codec)
            else:
                self.skipped[codec.name] = reason

    def run(self) -> dict[str, Any]:
        """Return the whole record as plain values; pictures stay in the clips' caches."""
        for video in clip_paths(self.config.clips):
            try:
                self.clips.append(self._open(video))
            except SglatError as error:
                self.skipped[video.name] = str(error)
                self.tell(f"{video.name} left out: {error}")
        if not self.clips:
            raise UsageError("no-clips", f"none of the clips could be used: {self.skipped}")
        records = [self._clip(clip) for clip in self.clips]
        return {
            "about": self._about(),
            "clips": records,
            "summary": summarize(records),
            "swap": self._swaps(),
            "frechet": self._frechet(records),
            "speed": self._speed() if self.config.with_speed else {},
            "not_measured": self.judges.missing,
            "skipped": self.skipped,
        }

    def close(self) -> None:
        """Release what the measurements used."""
        if self.landmarker is not None:
            self.landmarker.close()

    def _open(self, video: Path) -> ClipBench:
        if self.config.encoded is None and self.effort.seconds is not None:
            folder = self.config.out / "shortened"
            folder.mkdir(exist_ok=True)
            short = folder / video.name
            video = (
                short if short.exists() else material.shortened(video, short, self.effort.seconds)
            )
        clip = ClipBench(
            video=video,
            encoded=self._encoded(video),
            bundle=self.bundle,
            judges=self.judges,
            landmarker=self.landmarker,
            effort=self.effort,
            folder=self.config.out / "cache",
            tell=self.tell,
        )
        self.bundle.check_decoder_id(
            clip.parsed.header.decoder_id, wanted_bundle=clip.parsed.header.bundle
        )
        return clip

    def _encoded(self, video: Path) -> Path:
        """Return the file of a clip, encoded now unless a folder of files was given."""
        if self.config.encoded is not None:
            path = self.config.encoded / f"{video.stem}.sglat"
            if not path.is_file():
                raise UsageError("not-encoded", f"expected {path.name}, found none")
            return path
        from sglat.encoder.encode import EncodeConfig, encode

        folder = self.config.out / ("encoded-quick" if self.config.is_quick else "encoded")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{video.stem}.sglat"
        record = path.with_suffix(".json")
        if not record.exists():
            self.tell(f"{video.name}: encoding")
            config = EncodeConfig(
                bundle=self.config.bundle, device=self.config.device, is_forced=True,
                tune_steps=self.effort.tune_steps,
            )  # fmt: skip
            result = encode(video, path, config, progress=_said(self.tell, video.stem))
            record.write_text(json.dumps(result.to_json()), encoding="utf-8")
        return path

    def _clip(self, clip: ClipBench) -> dict[str, Any]:
        ours = clip.ours()
        wanted = ours.cost.first_view(MINUTE)
        matched: dict[str, Any] = {}
        curves: dict[str, list[Version]] = {"sglat": [*clip.our_curve(), ours]}
        for codec in self.anchors:
            curves[codec.name] = clip.anchor_curve(codec)
            level, version = clip.match(codec, wanted)
            matched[codec.name] = version.to_json() | {"level": level}
        record = clip.encoded.with_suffix(".json")
        reference = clip.reference
        trembling = None
        if reference.signals is not None:
            side = clip.parsed.header.resolution
            trembling = compare(reference.signals, reference.signals, side=side)["jitter_pixels"]
        return {
            "clip": clip.name,
            "frames": len(clip.parsed.motion.values),
            "frames_measured": len(clip.rows),
            "window": clip.window,
            "rates": clip.rates(),
            "ours": ours.to_json(),
            "curves": {name: [v.to_json() for v in points] for name, points in curves.items()},
            "at_our_rate": matched,
            "bd_rate": bd_table(curves),
            "source_jitter_pixels": trembling,
            "loss": clip.loss(),
            "damage": clip.damage(),
            "encode": json.loads(record.read_text()) if record.exists() else None,
        }

    def _swaps(self) -> list[dict[str, Any]]:
        """Put each clip's motion onto the next clip's person."""
        if len(self.clips) < 2:
            return []
        pairs = [*pairwise(self.clips), (self.clips[-1], self.clips[0])]
        return [self._swap(driver, puppet) for driver, puppet in pairs]

    def _swap(self, driver: ClipBench, puppet: ClipBench) -> dict[str, Any]:
        name = f"swap-{puppet.cache.folder.name}"

        def make() -> dict[str, Any]:
            self.tell(f"{driver.name} onto {puppet.name}")
            path = material.swapped(
                driver.encoded, puppet.encoded, driver.cache.folder / f"{name}.sglat"
            )
            found: dict[str, Any] = {"driver": driver.name, "puppet": puppet.name}
            shown = driver.shown(path, name)
            if self.judges.identity is not None:
                look = embeddings(self.judges.identity, puppet.reference.pictures).mean(0)
                look /= np.linalg.norm(look)
                for key, pictures in (
                    ("identity_loss", shown),
                    ("identity_loss_of_driver", driver.reference.pictures),
                    ("identity_loss_of_puppet", puppet.reference.pictures),
                ):
                    vectors = embeddings(self.judges.identity, pictures)
                    target = np.broadcast_to(look, vectors.shape)
                    found[key] = float(identity_losses(vectors, target).mean())
            signals = driver.reference.signals
            if self.landmarker is not None and signals is not None:
                watched = self.landmarker.watch(driver.shown_window(path, name))
                side = driver.parsed.header.resolution
                found |= compare(watched, signals, side=side)
            return found

        record: dict[str, Any] = driver.cache.record(name, make)
        return record

    def _frechet(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return distances between the sets of all clips' frames, ours and the anchors'."""
        networks: dict[str, Callable[[Any], Any]] = {}
        identity, perceptual = self.judges.identity, self.judges.perceptual
        if identity is not None:
            networks["MobileFaceNet (128)"] = lambda p: embeddings(identity, p)
        if perceptual is not None:
            networks["SqueezeNet (512)"] = lambda p: pooled_features(perceptual, p)
        sets: dict[str, list[Any]] = {"sglat": [c.shown(c.encoded, "ours") for c in self.clips]}
        for codec in self.anchors:
            levels = [record["at_our_rate"][codec.name]["level"] for record in records]
            sets[codec.name] = [
                clip.matched_pictures(codec, level)[0]
                for clip, level in zip(self.clips, levels, strict=True)
            ]
        source = np.concatenate([clip.reference.pictures for clip in self.clips])
        found: dict[str, Any] = {}
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

    def _speed(self) -> dict[str, Any]:
        """Return decoding speed of the shortest and the longest file, each in a fresh process."""
        ordered = sorted(self.clips, key=lambda clip: len(clip.parsed.motion.values))
        found = {}
        for clip in dict.fromkeys((ordered[0].name, ordered[-1].name)):
            path = next(c.encoded for c in self.clips if c.name == clip)
            self.tell(f"{clip}: decoding speed")
            found[clip] = decode_speed(path, self.config.bundle, device=self.config.device)
        return found

    def _origin(self) -> str:
        """Return in words how the files came about."""
        if self.config.encoded is not None:
            return "made earlier"
        effort = self.effort
        if effort.tune_steps is None:
            return "encoded in this run"
        return (
            f"encoded in this run: {effort.seconds:g} s of each clip and {effort.tune_steps} steps "
            "of tuning, which costs quality"
        )

    def _about(self) -> dict[str, Any]:
        judges = self.judges
        return {
            "sglat": __version__,
            "commit": self.commit,
            "command": command(sys.argv),
            "machine": machine(),
            "python": platform.python_version(),
            "packages": {name: package_version(name) for name in PACKAGES},
            "bundle": self.bundle.name,
            "decoder_id": self.bundle.decoder_id.hex(),
            "is_quick": self.config.is_quick,
            "effort": asdict(self.effort),
            "files": self._origin(),
            "metrics": [asdict(metric) for metric in METRICS],
            "perceptual": judges.perceptual.name if judges.perceptual else None,
            "identity": "MobileFaceNet, 128 numbers" if judges.identity else None,
            "signals": "MediaPipe face landmarker, each frame by itself"
            if self.landmarker
            else None,
            "anchors": [
                {"name": c.name, "encoder": c.encoder, "options": c.options} for c in self.anchors
            ],
        }


def _said(tell: Callable[[str], None], name: str) -> Callable[[str, int, int], None]:
    last = [""]

    def progress(stage: str, done: int, total: int) -> None:
        if stage != last[0]:
            last[0] = stage
            tell(f"{name}: {stage}")

    return progress
