"""The paper's metrics as a probe: what is at hand is measured, the rest left out or explained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sglat.errors import UsageError
from sglat_lab.bench import published
from sglat_lab.bench.published import PublishedNetworks, mouth_masks, published_probe
from sglat_lab.measure.paper_metrics import OPENFACE_COLUMNS
from sglat_lab.report.pages import part

FRAMES, SIDE = 240, 16


class Means(nn.Module):
    """Features that are means of the picture or of the fragment over space, by quarter."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x.flatten(1, -3), 2).flatten(1)[:, :8]


def vectors(crops: Tensor) -> Tensor:
    return nn.functional.normalize(crops.flatten(1), dim=1)


def points() -> NDArray[np.float64]:
    random = np.random.default_rng(1)
    return 0.5 + 0.1 * random.random((FRAMES, 478, 2))


@pytest.fixture
def clip(monkeypatch: pytest.MonkeyPatch) -> Any:
    random = np.random.default_rng(0)
    source = random.integers(0, 256, (FRAMES, SIDE, SIDE, 3)).astype(np.uint8)
    monkeypatch.setattr(
        published.file_variants, "decoded", lambda path, bundle: (source // 2, None)
    )
    return SimpleNamespace(
        name="a", source=source, encoded=None, bundle=None, landmarker=object(),
        signals=SimpleNamespace(points=points()),
        anchor_pictures=lambda codec, level, rows: source[rows] if level == 7 else None,
    )  # fmt: skip


CODEC: Any = SimpleNamespace(name="x264")
RECORD = {"at_our_rate": {"x264": {"level": 7}}}
ALL = PublishedNetworks(inception=Means(), i3d=Means(), arcface=vectors)


def test_every_metric_is_zero_for_the_source_and_more_for_other_pictures(clip: Any) -> None:
    found = published_probe(ALL, [clip], [CODEC], [RECORD])
    assert list(found) == ["FID", "FVD", "FVD_M", "L_ID (ArcFace)"]
    for metric, by_codec in found.items():
        assert by_codec["x264"] == pytest.approx(0, abs=1e-6), metric
        assert float(by_codec["sglat"]) > 1e-4, metric


def test_metrics_without_their_network_are_left_out(clip: Any) -> None:
    networks = PublishedNetworks(arcface=vectors)
    assert list(published_probe(networks, [clip], [CODEC], [RECORD])) == ["L_ID (ArcFace)"]
    clip.landmarker = None
    assert "FVD_M" not in published_probe(ALL, [clip], [CODEC], [RECORD])


def test_too_few_frames_for_fvd_are_said_and_the_others_measured(
    clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip.source = clip.source[:200]
    monkeypatch.setattr(
        published.file_variants, "decoded", lambda path, bundle: (clip.source // 2, None)
    )
    clip.signals.points = points()[:200]
    found = published_probe(ALL, [clip], [], [])
    assert str(found["FVD"]["sglat"]).startswith("not measured: FVD needs two fragments")
    assert float(found["FID"]["sglat"]) > 0


def test_the_mouth_is_the_region_of_the_lips_with_a_margin() -> None:
    face = np.zeros((1, 478, 2))
    face[0, list(published.LIPS)] = [[0.4, 0.6], [0.6, 0.6], [0.5, 0.7], [0.5, 0.55]] * 5 + [
        [0.5, 0.6]
    ] * (len(published.LIPS) - 20)
    (mask,) = mouth_masks(face, 100)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max()) == (38, 62)
    assert (rows.min(), rows.max()) == (53, 72)


def csv(path: Path, values: NDArray[np.float64]) -> None:
    names = [name for columns in OPENFACE_COLUMNS.values() for name in columns]
    lines = [", ".join(["frame", *names])]
    lines += [", ".join([str(at), *[f"{x:.6f}"] * len(names)]) for at, x in enumerate(values)]
    path.write_text("\n".join(lines))


def test_openface_files_are_read_by_clip(clip: Any, tmp_path: Path) -> None:
    moving = np.sin(np.arange(20.0))
    csv(tmp_path / "a.csv", moving)
    csv(tmp_path / "a.sglat.csv", -moving)
    found = published_probe(PublishedNetworks(), [clip], [], [], tmp_path)
    assert found == {name: {"sglat": pytest.approx(-1)} for name in OPENFACE_COLUMNS}
    (tmp_path / "a.sglat.csv").unlink()
    with pytest.raises(UsageError, match=r"a\.sglat\.csv"):
        published_probe(PublishedNetworks(), [clip], [], [], tmp_path)


def test_the_page_has_a_row_a_metric_and_a_column_a_codec(clip: Any) -> None:
    found = published_probe(PublishedNetworks(arcface=vectors), [clip], [CODEC], [RECORD])
    found["FVD"] = {"sglat": "not measured: few frames"}
    text = part("published", published=found, summary={"sglat": {}, "x264": {}})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == "| metric | sglat | x264 |"
    assert rows[1].startswith("| L_ID (ArcFace) | 0.") and rows[1].endswith(" | 0.000 |")
    assert rows[2] == "| FVD | not measured: few frames | – |"
    assert torch.is_tensor(vectors(torch.zeros(1, 3, 4, 4)))
