"""Everything that is measured on one clip: our versions, the anchors, loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sglat.bundles.bundle import Bundle
from sglat.errors import MediaError, UsageError
from sglat_lab.bench import anchors, file_variants
from sglat_lab.bench.encodes import QUALITIES, requantized
from sglat_lab.bench.harness import Cache, digest
from sglat_lab.measure.judges import Judges
from sglat_lab.measure.landmarks import Landmarker, Signals
from sglat_lab.measure.picture_metrics import (
    Reference,
    make_reference,
    means,
    measure_pictures,
    measure_time,
)
from sglat_lab.measure.rates import (
    COARSER,
    IDENTITY,
    LAYERS,
    MINUTE,
    QUALITY,
    Cost,
    Version,
    file_cost,
    file_rates,
    refine,
)
from sglat_lab.report.html import ClipPictures, Shown

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured."""

    frames: int = 24
    """Frames of each clip for picture metrics, evenly spread."""
    window: int = 100
    """Consecutive frames for the measures over time."""
    level_step: int = 1
    """Every n-th quantizer level of the anchors."""
    qualities: tuple[int, ...] = QUALITIES
    """Motion qualities beside the default, where the work file is at hand."""
    factors: tuple[int, ...] = (2, 4)
    """Coarser motion instead, where it is not."""
    loss_shares: tuple[float, ...] = file_variants.LOSS_SHARES
    loss_seeds: int = 2
    damage_trials: int = 100


FULL = Effort()
QUICK = Effort(
    frames=8, window=40, level_step=2, qualities=(26, 74), factors=(4,),
    loss_shares=(0.0, 0.1, 0.3), loss_seeds=1, damage_trials=20,
)  # fmt: skip


@dataclass(kw_only=True)
class ClipBench:
    """The measurements of one clip, each made once and kept.

    Args:
        video: the source.
        encoded: the `.sglat` file made from it.
        bundle: weights, at the rung that is measured.
        judges: measuring networks.
        landmarker: None where MediaPipe is not at hand.
        effort: how much.
        folder: where results are kept.
        work: the encoding's work file; None: not at hand.
        others: the clip encoded again at other identity sizes, by their bytes.
    """

    video: Path
    encoded: Path
    bundle: Bundle
    judges: Judges
    landmarker: Landmarker | None
    effort: Effort
    folder: Path
    work: Path | None = None
    others: dict[int, Path] = field(default_factory=dict)
    _last: tuple[tuple[str, int], anchors.AnchorStream] | None = None

    @property
    def name(self) -> str:
        """The clip's name."""
        return self.video.stem

    @cached_property
    def cache(self) -> Cache:
        """Results that depend on the clip, the file, the bundle and the effort."""
        present = [
            self.judges.perceptual and self.judges.perceptual.name,
            self.judges.lpips_alex is not None,
            self.judges.identity is not None,
            self.landmarker and self.landmarker.name,
        ]
        effort, bundle = asdict(self.effort), (self.bundle.decoder_id, self.bundle.resolution)
        key = digest(self.video, self.encoded, bundle, effort, present)
        return Cache(self.folder / f"{self.name}-{key}")

    @cached_property
    def parsed(self) -> file_variants.Parsed:
        """The file's motion and placement."""
        return file_variants.parse(self.encoded)

    @cached_property
    def source(self) -> Pictures:
        """Source crops `[T, R, R, 3]`."""
        return self.cache.array(
            "source",
            lambda: file_variants.source_crops(self.video, self.parsed, self.bundle.resolution),
        )

    @cached_property
    def signals(self) -> Signals:
        """Landmarks, blendshapes and pose of all source crops."""
        return self._signals("all", self.source)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Frames of the picture metrics."""
        return file_variants.spread(len(self.parsed.motion.values), self.effort.frames)

    @cached_property
    def window(self) -> int:
        """Consecutive frames of the measures over time."""
        return min(self.effort.window, len(self.parsed.motion.values))

    @cached_property
    def reference(self) -> Reference:
        """The source prepared for the metrics."""
        return make_reference(
            self.source, self.rows, self.window, self.judges, self.landmarker, kept=self._signals
        )

    def _signals(self, name: str, pictures: Pictures) -> Signals:
        """Return the signals of source crops, made once."""
        landmarker = self.landmarker
        if landmarker is None:
            raise UsageError("no-landmarker", "expected a landmark network, found none")
        packed = self.cache.array(f"signals-{name}", lambda: landmarker.signals(pictures).packed())
        return Signals.unpacked(packed)

    def picture_figures(self, shown: Pictures) -> dict[str, float]:
        """Return the mean picture metrics of crops at `rows`, `[N, R, R, 3]`."""
        return means(measure_pictures(shown, self.reference, self.judges))

    def time_figures(self, window: Pictures) -> dict[str, float]:
        """Return the measures over time of the first crops, `[window, R, R, 3]`."""
        return measure_time(window, self.reference, self.landmarker)

    @property
    def cost(self) -> Cost:
        """What our file costs."""
        return file_cost(self.encoded)

    def rates(self) -> dict[str, Any]:
        """Return all rate figures of our file."""
        found = self.cache.record("rates", lambda: file_rates(self.encoded))
        shift = file_variants.audio_shift_milliseconds(self.video, self.encoded)
        return {**found, "audio_shift_milliseconds": shift}

    def shown(self, path: Path, name: str) -> Pictures:
        """Return a file's crops at `rows`, `[N, R, R, 3]`."""
        return self.cache.array(
            f"shown-{name}",
            lambda: file_variants.decoded_rows(path, self.bundle, self.rows, self.cache.folder),
        )

    def shown_window(self, path: Path, name: str) -> Pictures:
        """Return a file's first crops, `[window, R, R, 3]`."""
        first = np.arange(self.window, dtype=np.int64)
        return self.cache.array(
            f"window-{name}",
            lambda: file_variants.decoded_rows(path, self.bundle, first, self.cache.folder),
        )

    def ours(self) -> Version:
        """Return the file as it is, with the measures over time."""

        def make() -> dict[str, float]:
            window = self.shown_window(self.encoded, "ours")
            shown = self.shown(self.encoded, "ours")
            return self.picture_figures(shown) | self.time_figures(window)

        figures = self.cache.record("ours", make)
        return Version(codec="sglat", setting="as encoded", cost=self.cost, figures=figures)

    def our_curve(self) -> list[Version]:
        """Return the clip at other motion qualities and identity sizes, and with layers cut off."""
        folder = self.cache.folder
        made: list[Version] = []
        if self.work is not None:
            for quality in self.effort.qualities:
                path = folder / f"quality{quality}.sglat"
                if not path.exists():
                    requantized(self.encoded, self.work, path, quality=quality)
                made.append(self._variant(path, f"-q {quality}", QUALITY))
        else:
            for factor in self.effort.factors:
                path = folder / f"coarser{factor}.sglat"
                if not path.exists():
                    file_variants.with_coarser_motion(self.encoded, path, factor)
                made.append(self._variant(path, f"motion steps times {factor}", COARSER))
        for size, path in sorted(self.others.items()):
            made.append(self._variant(path, f"--identity-bytes {size}", IDENTITY))
        layers = self._layers()
        for keep in range(1, layers):
            path = folder / f"layers{keep}.sglat"
            if not path.exists():
                file_variants.with_layers(self.encoded, path, keep)
            made.append(self._variant(path, f"{keep} of {layers} identity layers", LAYERS))
        return made

    def _layers(self) -> int:
        from sglat.bitstream.reader import load_identity

        return len(load_identity(self.encoded).layers)

    def _variant(self, path: Path, setting: str, kind: str) -> Version:
        name = path.stem if kind != IDENTITY else f"identity-{digest(path)}"
        figures = self.cache.record(name, lambda: self.picture_figures(self.shown(path, name)))
        return Version(
            codec="sglat", setting=setting, cost=file_cost(path), figures=figures, kind=kind
        )

    def _coded(self, codec: anchors.AnchorCodec, level: int) -> anchors.AnchorStream:
        """Return an anchor's stream; the last one is remembered."""
        key = (codec.encoder, level)
        if self._last is None or self._last[0] != key:
            stream = anchors.encode(codec, level, self.source, self.parsed.rate)
            self._last = (key, stream)
        return self._last[1]

    def anchor_cost(self, codec: anchors.AnchorCodec, level: int) -> Cost:
        """Return what an anchor costs at a level."""

        def make() -> list[int]:
            stream = self._coded(codec, level)
            return [stream.first_bytes, stream.other_bytes]

        once, running = self.cache.record(f"{codec.encoder}-{level}-bytes", make)
        return Cost(once_bytes=once, running_bytes=running, seconds=self.cost.seconds)

    def anchor_pictures(
        self, codec: anchors.AnchorCodec, level: int, rows: NDArray[np.int64]
    ) -> Pictures:
        """Return some decoded crops of an anchor, `[N, R, R, 3]`.

        Raises:
            MediaError: the stream gave another number of frames.
        """
        wanted, found, count = set(rows.tolist()), {}, 0
        for picture in anchors.decode(codec, self._coded(codec, level)):
            if count in wanted:
                found[count] = picture
            count += 1
        if count != len(self.source):
            raise MediaError(
                "anchor-frames",
                f"expected {len(self.source)} frames, {codec.name} gave {count}",
            )
        return np.stack([found[int(row)] for row in rows])

    def matched_pictures(self, codec: anchors.AnchorCodec, level: int) -> tuple[Pictures, Pictures]:
        """Return an anchor's crops at `rows` and those of the window."""
        rows = np.concatenate([self.rows, np.arange(self.window)])
        both = self.cache.array(
            f"{codec.encoder}-{level}-pictures", lambda: self.anchor_pictures(codec, level, rows)
        )
        return both[: len(self.rows)], both[len(self.rows) :]

    def anchor(self, codec: anchors.AnchorCodec, level: int) -> Version:
        """Return one point of an anchor's curve."""

        def make() -> dict[str, float]:
            return self.picture_figures(self.anchor_pictures(codec, level, self.rows))

        cost = self.anchor_cost(codec, level)
        figures = self.cache.record(f"{codec.encoder}-{level}", make)
        return Version(
            codec=codec.name, setting=f"level {level}", cost=cost, figures=figures,
            is_lowest=level == codec.levels[-1],
        )  # fmt: skip

    def anchor_curve(self, codec: anchors.AnchorCodec) -> list[Version]:
        """Return an anchor's sweep; its coarsest level is always in it."""
        levels = codec.levels[:: -self.effort.level_step][::-1]
        return [self.anchor(codec, level) for level in levels]

    def match(self, codec: anchors.AnchorCodec, wanted: float) -> tuple[int, Version]:
        """Return the anchor at the least rate over 60 s that is not below a wanted one.

        Args:
            codec: which.
            wanted: kbit/s.

        Returns:
            Its level, and the version with the measures over time.
        """

        def rate(level: int) -> float:
            return self.anchor_cost(codec, level).first_view(MINUTE)

        level = refine(rate, codec.levels[0], codec.levels[-1], wanted)
        is_lowest = level == codec.levels[-1] and rate(level) > wanted

        def make() -> dict[str, float]:
            shown, window = self.matched_pictures(codec, level)
            return self.picture_figures(shown) | self.time_figures(window)

        figures = self.cache.record(f"{codec.encoder}-{level}-full", make)
        version = Version(
            codec=codec.name, setting=f"level {level}", cost=self.anchor_cost(codec, level),
            figures=figures, is_lowest=is_lowest,
        )  # fmt: skip
        return level, version

    def loss(self) -> dict[str, Any]:
        """Return quality against the share of motion groups lost, and the cost of short groups."""
        found = []
        for share in self.effort.loss_shares:
            for seed in range(1 if share == 0 else self.effort.loss_seeds):
                name = f"loss-{share:g}-{seed}"
                found.append(self.cache.record(name, partial(self._loss, share, seed)))
        path = self.cache.folder / "short_groups.sglat"
        cost = file_variants.small_group_cost(self.encoded, path, file_variants.LOST_GROUP_FRAMES)
        return {"loss": found, "kbit_per_second_short_groups": cost}

    def _loss(self, share: float, seed: int) -> dict[str, float]:
        path = self.cache.folder / "lossy.sglat"
        what = file_variants.lossy_file(self.encoded, path, share, seed=seed)
        shown = file_variants.decoded_rows(path, self.bundle, self.rows, self.cache.folder)
        return {"share": share, **what, **self.picture_figures(shown)}

    def pictures(
        self, record: dict[str, Any], codecs: Sequence[anchors.AnchorCodec]
    ) -> ClipPictures:
        """Return the source, our file and each anchor at our rate, for the report.

        Args:
            record: of this clip.
            codecs: the anchors.
        """
        ours = self.shown(self.encoded, "ours"), self.shown_window(self.encoded, "ours")
        versions = [
            Shown(codec="source", frames=self.reference.pictures, window=self.source),
            Shown(codec="sglat", frames=ours[0], window=ours[1]),
        ]
        for codec in codecs:
            frames, window = self.matched_pictures(
                codec, record["at_our_rate"][codec.name]["level"]
            )
            versions.append(Shown(codec=codec.name, frames=frames, window=window))
        return ClipPictures(rate=self.parsed.rate, versions=versions, window=self.window)
