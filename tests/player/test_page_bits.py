"""Every vector in the page itself: its integers, or its error code, in headless Chromium."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sglat.player.page import build_page
from sglat_lab.bench.browser import Browser
from tests.format_spec.support import MANIFEST, READABLE, REFUSED, data_of, reference_facts
from tests.player.test_page import needs_browser

pytestmark = needs_browser

READ = """((files) => {
  const facts = (text) => {
    try {
      const file = sglatPlayer.openFile(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
      const frames = [...file.groups()].flat();
      return {
        error: file.damage && file.damage.code,
        motion: frames.map((frame) => [...frame.integers]),
        times: frames.map((frame) => frame.pts),
        flags: frames.map((frame) => (frame.held ? 1 : 0) + (frame.cut ? 2 : 0)),
        layers: (file.identity ? file.identity.layers : []).map((layer) =>
          layer.map((entry) => [...entry.integers])),
        packets: file.audio ? [...file.audio.packets()].map((p) => [...p.data]) : [],
      };
    } catch (error) {
      if (error.code === undefined) throw error;
      return {error: error.code};
    }
  };
  return files.map(facts);
})(%s)"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Return what the page reads of every vector, by name."""
    path: Path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(build_page(), "utf-8")
    names = [*READABLE, *REFUSED]
    files = json.dumps([base64.b64encode(data_of(name)).decode() for name in names])
    with Browser() as browser:
        page = browser.page()
        page.open(path.as_uri())
        yield dict(zip(names, page.evaluate(READ % files), strict=True))
        assert page.complaints == []


@pytest.mark.parametrize("name", READABLE)
def test_the_page_reads_the_integers_of_a_vector(facts: dict[str, Any], name: str) -> None:
    found, expected = facts[name], reference_facts(data_of(name))
    assert found["error"] is None
    for key in ("motion", "times", "flags", "layers"):
        assert found[key] == expected[key]
    assert [bytes(packet) for packet in found["packets"]] == expected["packets"]


@pytest.mark.parametrize("name", REFUSED)
def test_the_page_refuses_a_faulty_vector_with_its_code(facts: dict[str, Any], name: str) -> None:
    assert facts[name]["error"] == MANIFEST[name]["expect"]["error"]
