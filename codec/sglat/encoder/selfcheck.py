"""Self-check: decodes the written file and reports the seconds that are poor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.encoder.align import Crops
from sglat.encoder.track import Track
from sglat.networks.pixels import from_pixels

_POOR_IDENTITY = 0.5  # cosine below which the person may look like another
_POOR_PICTURE = 20.0  # dB below which shapes are wrong
_MOST_WARNINGS = 8


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """Decoded crops against aligned source crops.

    Identity is measured by insightface where its model pack is installed, else by the bundle's own
    network; the perceptual network is always the bundle's own. Tuning minimises the latter, so its
    figure is optimistic.
    """

    psnr_db: float
    perceptual: float
    """Distance of the bundle's perceptual network; LPIPS-like, lower is better."""
    identity: float
    """Mean cosine of identity vectors."""
    inverter_perceptual: float | None
    """The same for each frame's own inversion, on a sample of frames."""
    inverter_identity: float | None
    warnings: list[str] = field(default_factory=list)


@torch.inference_mode()
def check_file(
    path: Path,
    crops: Crops,
    track: Track,
    bundle: Bundle,
    *,
    identity_file: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SelfCheck:
    """Decode a file and compare every second frame with the face with its source crop.

    Raises:
        FormatError: the file just written does not decode.
    """
    checked = set(np.flatnonzero(~track.held)[::2].tolist())
    rows: list[tuple[int, float, float, float]] = []
    inverted: list[tuple[float, float]] = []
    batch: list[tuple[int, Tensor]] = []

    def measure() -> None:
        index = [number for number, _ in batch]
        shown = torch.stack([picture for _, picture in batch]).to(bundle.device)
        wanted = crops.tensor(index).to(bundle.device)
        rows.extend(zip(index, *_figures(shown, wanted, bundle), strict=True))
        if len(inverted) < 48:
            again = bundle.generator(bundle.inverter(wanted)).clamp(-1, 1)
            _, distance, cosine = _figures(again, wanted, bundle)
            inverted.extend(zip(distance, cosine, strict=True))
        batch.clear()

    with path.open("rb") as file:
        decoder = Decoder(
            file,
            bundle=bundle,
            config=DecodeConfig(size=bundle.resolution),
            identity_file=identity_file,
        )
        for number, frame in enumerate(decoder.frames()):
            if number in checked:
                batch.append((number, from_pixels(frame.picture)))
            if len(batch) == 8:
                measure()
            if progress is not None:
                progress(number + 1, len(crops))
    if batch:
        measure()
    table = np.array([row[1:] for row in rows])
    means = table.mean(axis=0)
    own = np.array(inverted).mean(axis=0)
    return SelfCheck(
        psnr_db=round(float(means[0]), 2), perceptual=round(float(means[1]), 4),
        identity=round(float(means[2]), 3), inverter_perceptual=round(float(own[0]), 4),
        inverter_identity=round(float(own[1]), 3), warnings=poor_seconds(rows, track),
    )  # fmt: skip


def _figures(
    shown: Tensor, wanted: Tensor, bundle: Bundle
) -> tuple[list[float], list[float], list[float]]:
    error = (shown - wanted).square().mean((1, 2, 3)).clamp_min(1e-10)
    psnr = 10 * torch.log10(4 / error)
    network = bundle.perceptual
    distance = network.distance(network.features(shown), network.features(wanted))
    cosine = (bundle.faces.embed(shown) * bundle.faces.embed(wanted)).sum(1)
    return psnr.tolist(), distance.tolist(), cosine.tolist()


def poor_seconds(rows: list[tuple[int, float, float, float]], track: Track) -> list[str]:
    """Return one line for each second whose mean falls below a limit, worst first. Rows are frame
    number, PSNR in dB, perceptual distance and identity cosine."""
    seconds: dict[int, list[tuple[float, float]]] = {}
    for number, psnr, _, cosine in rows:
        at = int((track.pts[number] - track.pts[0]) * track.time_base)
        seconds.setdefault(at, []).append((psnr, cosine))
    found = []
    for at, values in seconds.items():
        psnr, cosine = np.mean(values, axis=0)
        if cosine < _POOR_IDENTITY:
            found.append((cosine - _POOR_IDENTITY, f"second {at}: identity {cosine:.2f} is poor"))
        elif psnr < _POOR_PICTURE:
            found.append(((psnr - _POOR_PICTURE) / 10, f"second {at}: {psnr:.1f} dB is poor"))
    return [line for _, line in sorted(found)[:_MOST_WARNINGS]]
