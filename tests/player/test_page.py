"""The page in headless Chromium: pictures of every renderer, playing, editing, bad input."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from sglat.bitstream.reader import Reader
from sglat.bitstream.records import Picture, Placement, Provenance
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.marks.embedded import read_embedded
from sglat.marks.marking import watermark_id
from sglat.marks.tags import container_tags, read_tags
from sglat.media.pictures import encode_png
from sglat.networks.pixels import to_pixels
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylespace import GeneratorConfig
from sglat.player.page import build_page, bundled_script, policy
from sglat_lab.bench.browser import WEBGPU, Browser, Page, find_chromium
from tests.player.looks import look_file
from tests.player.support import needs_node, run_node
from tests.support.tolerances import PLAYER_PICTURE_DB

REASON = "" if find_chromium() else "needs Chromium (apt install chromium), which is not on PATH"
if REASON and os.environ.get("SGLAT_REQUIRE") == "browser":
    raise RuntimeError(REASON)
needs_browser = pytest.mark.skipif(bool(REASON), reason=REASON or "-")
SCRIPT = "</script><script>window.hit=1</script>"
HOSTILE = f'<img src=x onerror="window.hit=1">{SCRIPT}'
PICTURE = 'document.getElementById("picture").toDataURL()'
MESSAGE = 'document.getElementById("message").textContent'


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return the embedded bundle."""
    return load_bundle("mini")


@pytest.fixture(scope="module")
def file(bundle: Bundle) -> bytes:
    """Return a file of 12 frames at 128 px."""
    return look_file(bundle, frames=12, resolution=128)


@pytest.fixture(scope="module")
def page_path(file: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with that file inside, and a hostile name."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(build_page(file=file, name=HOSTILE), "utf-8")
    return path


@pytest.fixture(scope="module")
def page(page_path: Path) -> Iterator[Page]:
    """Return that page in a browser that draws in software, when its first picture is there."""
    with Browser(*WEBGPU) as browser:
        page = browser.page()
        page.open(page_path.as_uri())
        page.wait_for(f"sglatPlayer.firstPictureAt || {MESSAGE}")
        yield page


def test_the_policy_names_the_only_script_and_style() -> None:
    rules = policy("script", "style")
    assert "default-src 'none'" in rules
    assert "unsafe-inline" not in rules
    assert policy("other", "style") != rules


def test_the_script_is_whole_and_needs_no_loader() -> None:
    script = bundled_script()
    assert "modules['page.js']" in script
    assert "\nimport " not in script
    assert "\nexport " not in script


def test_a_name_is_text_in_the_page() -> None:
    html = build_page(name=HOSTILE)
    assert HOSTILE not in html
    assert html.count("<script") == 4
    assert "{{weights}}" in build_page(name="{{weights}}").replace("\n", "")


def decibels(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the PSNR of pictures of 8 bits."""
    error = np.square(found.astype(np.float64) - expected).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def small_generator() -> tuple[Generator, list[torch.Tensor]]:
    """Return a narrow generator of 32 px, and one frame's styles."""
    random = torch.Generator().manual_seed(5)
    config = GeneratorConfig(
        resolution=32, channels=(16, 12, 8, 8), style_dim=16, latent_dim=16, mapping_layers=0,
        up_filter="low-resolution", noise=False,
    )  # fmt: skip
    generator = Generator(config)
    with torch.no_grad():
        for weight in generator.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random))
    return generator, [torch.randn(1, width, generator=random) for width in config.style_widths]


RENDER = """(async () => {
  const {channels, weights, styles, kind} = %s;
  const named = new Map(Object.entries(weights).map(([n, v]) => [n, Float32Array.from(v)]));
  const renderer = await sglatPlayer.createRenderer({channels, weights: named}, [kind]);
  const given = styles.map((s) => Float32Array.from(s));
  const pictures = await Promise.all([16, 32].map((rung) => renderer.render(given, rung)));
  const out = [];
  for (const picture of pictures) {
    const rung = picture.width;
    const context = new OffscreenCanvas(rung, rung).getContext("2d");
    if (picture instanceof ImageData) context.putImageData(picture, 0, 0);
    else context.drawImage(picture, 0, 0);
    out.push([...context.getImageData(0, 0, rung, rung).data].filter((_, at) => (at & 3) < 3));
  }
  renderer.destroy();
  return out;
})()"""


def given_of(generator: Generator, styles: list[torch.Tensor]) -> dict[str, Any]:
    """Return what a renderer takes, as plain values."""
    return {
        "channels": generator.config.channels,
        "weights": {
            name: weight.detach().flatten().tolist()
            for name, weight in generator.named_parameters()
            if "affine" not in name
        },
        "styles": [style[0].tolist() for style in styles],
    }


@needs_node
def test_webassembly_and_plain_javascript_draw_the_generators_pictures(tmp_path: Path) -> None:
    generator, styles = small_generator()
    path = tmp_path / "given.json"
    path.write_text(json.dumps(given_of(generator, styles)))
    with torch.no_grad():
        expected = to_pixels(generator.synthesize(styles).clamp(-1, 1))[0]
    kinds = []
    for line in run_node("cpu.mjs", path).splitlines():
        drawn = json.loads(line)
        kinds.append(drawn["kind"])
        shown = np.array(drawn["rgb"], np.uint8).reshape(expected.shape)
        assert decibels(shown, expected) >= PLAYER_PICTURE_DB
    assert kinds == ["processor (WebAssembly)", "processor"]


@needs_browser
@pytest.mark.parametrize("kind", ["webgpu", "webgl2", "cpu"])
def test_every_renderer_draws_the_generators_pictures(page: Page, kind: str) -> None:
    generator, styles = small_generator()
    found = page.evaluate(RENDER % json.dumps({**given_of(generator, styles), "kind": kind}))
    for rung, pixels in zip((16, 32), found, strict=True):
        count = len(generator.config.entries_up_to(rung))
        with torch.no_grad():
            picture = generator.synthesize(styles[:count]).clamp(-1, 1)
        expected = to_pixels(picture)[0]
        shown = np.array(pixels, np.uint8).reshape(expected.shape)
        assert expected.std() > 20
        assert decibels(shown, expected) >= PLAYER_PICTURE_DB


OPEN = """(async () => {
  const bytes = Uint8Array.from(atob("%s"), (c) => c.charCodeAt(0));
  await sglatPlayer.player.act(() => sglatPlayer.player.open(bytes, "other.sglat"));
  return document.getElementById("message").textContent;
})()"""


def opened(page: Page, data: bytes) -> str:
    """Return the message of a page after a file was opened there."""
    return str(page.evaluate(OPEN % base64.b64encode(data).decode()))


@needs_browser
def test_the_first_picture_is_that_of_the_decoder(page: Page, file: bytes) -> None:
    assert page.evaluate(MESSAGE) == ""
    text = page.evaluate("""(() => {
      const context = document.getElementById("picture").getContext("2d");
      const {data} = context.getImageData(0, 0, 128, 128);
      return btoa(String.fromCharCode(...data.filter((_, at) => (at & 3) < 3)));
    })()""")
    shown = np.frombuffer(base64.b64decode(text), np.uint8).reshape(128, 128, 3)
    decoder = Decoder(io.BytesIO(file), config=DecodeConfig(device="cpu", half=False, batch=1))
    assert decibels(shown, next(iter(decoder.frames())).picture) >= PLAYER_PICTURE_DB
    assert page.complaints == []
    assert page.evaluate("window.hit === undefined && document.title.includes('<img')")


@needs_browser
def test_keys_and_sliders_change_the_picture(page: Page) -> None:
    frame = 'document.getElementById("status").textContent.split(" ·")[0]'
    page.press(".")
    page.wait_for(f'{frame} === "frame 1"')
    page.press("Home")
    page.wait_for(f'{frame} === "frame 0"')
    before = page.evaluate(PICTURE)
    page.evaluate("""(() => {
      const slider = document.getElementById("slider-0");
      slider.value = 20;
      slider.dispatchEvent(new Event("input"));
    })()""")
    page.evaluate(f"window.before = {json.dumps(before)}")
    page.wait_for(f"{PICTURE} !== window.before")
    page.evaluate('document.getElementById("save").click()')
    saved = bytes(
        page.wait_for("sglatPlayer.player.lastSaved && [...sglatPlayer.player.lastSaved]")
    )
    values = Decoder(io.BytesIO(saved)).reader.read_motion().dequantize()
    page.evaluate('document.getElementById("reset").click()')
    own = page.evaluate("sglatPlayer.player.file.frame(3).values[0]")
    assert abs(values[3, 0] - own - 20) <= 0.25
    assert page.evaluate(MESSAGE) == ""


@needs_browser
def test_playing_moves_on_and_ends(page: Page) -> None:
    page.evaluate('document.getElementById("rate").value')
    page.press("Home")
    page.press(" ")
    page.wait_for("sglatPlayer.player.stage.isPlaying")
    page.wait_for("!sglatPlayer.player.stage.isPlaying")
    assert page.wait_for("sglatPlayer.player.stage.position > 0.4")
    assert page.complaints == []


@needs_browser
def test_another_files_motion_drives_this_face(page: Page, file: bytes, bundle: Bundle) -> None:
    assert opened(page, file) == ""
    driver = look_file(bundle, seed=3, frames=8, resolution=128)
    page.evaluate(OPEN.replace("open(bytes", "drive(bytes") % base64.b64encode(driver).decode())
    assert page.evaluate(MESSAGE) == ""
    notice = page.evaluate('document.getElementById("consent").textContent')
    assert "other.sglat" in notice
    assert "made up" in notice  # the consent of the person shown
    relative = page.evaluate(PICTURE)
    page.evaluate(f"window.before = {json.dumps(relative)}")
    page.evaluate("""(() => {
      const chosen = document.getElementById("transfer");
      chosen.value = "absolute";
      chosen.dispatchEvent(new Event("change"));
    })()""")
    page.wait_for(f"{PICTURE} !== window.before")
    page.evaluate('document.getElementById("save").click()')
    saved = bytes(page.evaluate("[...sglatPlayer.player.lastSaved]"))
    reader = Decoder(io.BytesIO(saved)).reader
    expected = Reader(io.BytesIO(driver)).read_motion().values
    assert np.array_equal(reader.read_motion().values, expected)
    page.evaluate('document.getElementById("own").click()')
    page.wait_for("sglatPlayer.player.driver === null")


@needs_browser
def test_the_face_lies_on_the_plate_where_the_placement_has_it(page: Page, bundle: Bundle) -> None:
    red = np.zeros((120, 160, 3), np.uint8)
    red[..., 0] = 255
    steps = np.array([0.5, 0.5, 0.5, 0.25], np.float32)
    rows = np.tile(np.array([80 / 0.5, 60 / 0.5, 60 / 0.5, 45 / 0.25], np.int32), (2, 1))
    data = look_file(
        bundle, frames=2, resolution=128, source_size=(160, 120), placement_steps=steps,
        plate=Picture(media_type="image/png", data=encode_png(red)),
        placement=Placement(values=rows, steps=steps),
    )  # fmt: skip
    assert opened(page, data) == ""
    page.evaluate('document.getElementById("plate").click()')
    page.wait_for('document.getElementById("picture").width === 160')
    shown = page.evaluate("""(() => {
      const context = document.getElementById("picture").getContext("2d");
      const at = (x, y) => [...context.getImageData(x, y, 1, 1).data].slice(0, 3).join();
      return [at(5, 5), at(52, 32), at(80, 60), at(80, 24)];
    })()""")
    # a square of 60 px turned by 45 degrees reaches 42 px up, and not to its unturned corner
    assert shown[0] == shown[1] == "255,0,0"
    assert "255,0,0" not in shown[2:]


@needs_browser
def test_a_lost_graphics_context_is_replaced(page: Page, file: bytes) -> None:
    page.evaluate('sglatPlayer.player.stage.wanted = ["webgl2"]')
    assert opened(page, file) == ""
    page.evaluate("""(() => {
      const {renderer} = sglatPlayer.player.stage;
      window.lost = renderer;
      renderer.gl.getExtension("WEBGL_lose_context").loseContext();
    })()""")
    page.wait_for("sglatPlayer.player.stage.renderer !== window.lost")
    page.evaluate("sglatPlayer.player.stage.wanted = null")
    assert page.evaluate(MESSAGE) == ""


@needs_browser
@pytest.mark.parametrize("kind", ["webgl2", "cpu"])
def test_a_film_has_the_frames_and_tags(page: Page, file: bytes, kind: str, tmp_path: Path) -> None:
    page.evaluate(f'sglatPlayer.player.stage.wanted = ["{kind}"]')
    assert opened(page, file) == ""
    page.evaluate("sglatPlayer.player.stage.wanted = null")
    film = bytes(
        page.evaluate("""(async () => {
      const {player} = sglatPlayer;
      document.getElementById("from").value = 0.04;
      document.getElementById("to").value = 0.2;
      await player.saveFilm(new Event("submit"));
      return [...new Uint8Array(await player.lastFilm.arrayBuffer())];
    })()""")
    )
    path = tmp_path / "a.webm"
    path.write_bytes(film)
    tags = read_tags(read_embedded(path), container_tags(path))
    assert tags.is_synthetic
    assert tags.source_types == ("trainedAlgorithmicMedia",)
    assert tags.consent == "made up"
    reader = Decoder(io.BytesIO(file)).reader
    assert reader.identity_sha256 is not None
    assert tags.watermark == watermark_id(reader.identity_sha256, reader.provenance).hex()
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == [0, 0.04, 0.08, 0.12]


@needs_browser
def test_what_is_no_file_of_ours_becomes_one_line(page: Page, file: bytes, bundle: Bundle) -> None:
    assert opened(page, b"plain text, no file").startswith("bad-signature: ")
    other = look_file(bundle, frames=2, resolution=128, decoder_id=bytes(32))
    assert "wrong-decoder" in opened(page, other)
    assert "\n" not in page.evaluate(MESSAGE)
    page.evaluate("""(async () => {
      const {player} = sglatPlayer;
      const files = [new File([new Uint8Array(60e6)], "zeros.sglat")];
      await player.act(() => player.openChosen({files}, (data, name) => player.open(data, name)));
    })()""")
    assert page.evaluate(MESSAGE) == "not-sglat: expected a .sglat file, found zeros"
    assert "damaged after" in opened(page, file[:-200])
    assert page.complaints == []


@needs_browser
def test_texts_of_a_file_stay_text(page: Page, bundle: Bundle) -> None:
    record = Provenance(generated_by=HOSTILE, consent=HOSTILE, extra={"label": "Made by a machine"})
    data = look_file(bundle, frames=2, resolution=128, encoder=SCRIPT, provenance=record)
    assert opened(page, data) == ""
    facts = page.evaluate('document.getElementById("facts").textContent')
    assert facts.count(HOSTILE) == 2
    assert facts.count(SCRIPT) == 3
    assert page.evaluate("window.hit === undefined")
    assert page.evaluate('document.querySelectorAll("main img").length') == 0
    assert page.evaluate("sglatPlayer.player.stage.label") == "Made by a machine"
