"""The published set `ffhq` end to end on a stand-in: fetched, converted, encoded with, decoded,
swapped and measured. `make test` runs it at 256 px, `make test-full` at 1024 px as well."""

from __future__ import annotations

import os
import resource
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import sglat
from sglat.bundles import catalogue as catalogue_module
from sglat.bundles import store
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.bundles.store import FetchConfig, fetch_bundle
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from sglat.networks.perceptual import Lpips, weighted_feature_distance
from sglat.networks.pixels import from_pixels
from sglat_lab.bench.published import networks_at_hand
from sglat_lab.measure.judges import embeddings, identity_losses
from sglat_lab.measure.paper_metrics import FRAGMENT_FRAMES, fid, fragments_of, fvd
from tests.support import standin
from tests.support.shared import clip_paths

SIZES = [int(size) for size in os.environ.get("SGLAT_FULL", "256").split()]
MOST_GIGABYTES = 20

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def fetch(name: str, files: list[Path], patch: pytest.MonkeyPatch) -> None:
    """Fetch a bundle's stand-in files from a server on this machine."""
    with standin.served(files[0].parent) as address:
        entry = standin.catalogue(files, address, name)
        patch.setitem(store.BUNDLES, name, entry)
        patch.setitem(catalogue_module.BUNDLES, name, entry)
        state = fetch_bundle(name, FetchConfig(licence_accepted=True))
    assert state.missing_files == ()


def pictures_of(path: Path, bundle: Bundle) -> NDArray[np.uint8]:
    return np.stack([frame.picture for frame in sglat.decode(path, bundle=bundle)])


@pytest.mark.parametrize("size", SIZES)
def test_the_published_set_from_its_files_to_figures(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("lpips") is None:
        pytest.skip("needs the package lpips (pip install --no-deps lpips)")
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path / "home"))
    fetch("ffhq", standin.write_files(tmp_path / "published", size), monkeypatch)
    fetch("metrics", standin.write_metric_files(tmp_path / "metrics"), monkeypatch)
    bundle = load_bundle("ffhq")
    assert bundle.resolution == size
    perceptual = bundle.perceptual
    assert isinstance(perceptual, Lpips)

    config = EncodeConfig(
        bundle="ffhq", preset="fast", tune_steps=2, tune_frames=1, end_seconds=0.07, device="cpu"
    )
    made, swapped = tmp_path / "a.sglat", tmp_path / "b.sglat"
    result = encode(clip_paths()[0], made, config)
    assert result.check is not None
    assert np.isfinite(result.check.psnr_db)
    shown = pictures_of(made, bundle)
    assert shown.shape == (result.frames, size, size, 3)
    assert shown.std() > 1

    sglat.swap(motion=made, identity=made, out=swapped)
    again = pictures_of(swapped, bundle)
    assert np.abs(again.astype(int) - shown).max() <= 1

    networks = networks_at_hand(bundle)
    assert networks.inception is not None
    assert networks.i3d is not None
    assert networks.arcface is not None
    other = 255 - shown
    figures = {
        "FID": fid(networks.inception, shown, other),
        "L_ID": identity_losses(
            embeddings(networks.arcface, shown), embeddings(networks.arcface, other)
        ).mean(),
        "LPIPS": weighted_feature_distance(
            *(perceptual.features(from_pixels(some)) for some in (shown, other)),
            perceptual.heads(),
        ).mean(),
    }
    if size == max(SIZES) > 256:
        repeats = 2 * FRAGMENT_FRAMES // len(shown) + 1
        long, wrong = (np.tile(some, (repeats, 1, 1, 1)) for some in (shown, other))
        figures["FVD"] = fvd(networks.i3d, fragments_of(long), fragments_of(wrong))
    for name, figure in figures.items():
        assert float(figure) > 0, name
        assert torch.isfinite(torch.as_tensor(float(figure))), name
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    assert gigabytes < MOST_GIGABYTES
