"""The page in a browser against the decoder: pictures, speed, time to the first one, sound.

python -m sglat_lab.bench.player OUT.json CLIP.sglat ... [--frames N] [--renderers webgpu,cpu]

Every tenth frame of each file is drawn at the lowest and at the full resolution and compared with
the Python decoder in float32. Speed is that of the browser's renderer, here in software.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.info import describe
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.player.page import page_of_file
from sglat_lab.bench.browser import WEBGPU, Browser, Page
from sglat_lab.report.pages import provenance, write_page

EVERY: Final = 10  # frames
PLAYED_SECONDS: Final = 4
MESSAGE: Final = 'document.getElementById("message").textContent'

_DRAW: Final = """(async () => {
  const {stage} = sglatPlayer.player;
  const frame = stage.motion.frame(%d);
  const began = performance.now();
  const picture = await stage.picture(frame, %d);
  const milliseconds = performance.now() - began;
  const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
  if (picture instanceof ImageData) context.putImageData(picture, 0, 0);
  else context.drawImage(picture, 0, 0);
  const {data} = context.getImageData(0, 0, picture.width, picture.height);
  let text = "";
  for (let at = 0; at < data.length; at += 32768) {
    text += String.fromCharCode(...data.subarray(at, at + 32768));
  }
  return {milliseconds, text: btoa(text)};
})()"""

_PLAY: Final = """(async () => {
  const {stage} = sglatPlayer.player;
  await stage.seek(stage.motion.startSeconds);
  stage.wantedRung = stage.person.rungs[0];
  stage.offsets.length = 0;
  await stage.play();
  await new Promise((resume) => setTimeout(resume, %d));
  stage.pause();
  return {offsets: stage.offsets, sound: stage.hasSound, note: stage.soundNote,
          frame_seconds: stage.frameSeconds};
})()"""


def decibels(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Return the PSNR of two pictures of 8 bits; 100 at most."""
    error = np.square(found.astype(np.float64) - expected).mean()
    return float(min(100.0, 10 * np.log10(255**2 / max(error, 1e-9))))


def expected_pictures(
    path: Path, wanted: Sequence[int], side: int | None
) -> dict[int, NDArray[np.uint8]]:
    """Return the Python decoder's pictures of some frames, `[H, W, 3]`."""
    config = DecodeConfig(device="cpu", half=False, batch=1, size=side)
    found = {}
    with path.open("rb") as file:
        for frame in Decoder(file, config=config).frames():
            if frame.index in wanted:
                found[frame.index] = frame.picture
            if len(found) == len(wanted):
                break
    return found


def measure(
    page: Page, address: str, expected: dict[int, dict[int, NDArray[np.uint8]]]
) -> dict[str, Any]:
    """Return the figures of one file with one renderer; `expected` is by resolution and frame."""
    page.complaints.clear()
    page.open(address)
    first = page.wait_for(f"sglatPlayer.firstPictureAt || {MESSAGE}")
    rungs = {}
    for rung, pictures in expected.items():
        scores, times = [], []
        for index, picture in pictures.items():
            drawn = page.evaluate(_DRAW % (index, rung))
            rgba = np.frombuffer(base64.b64decode(drawn["text"]), np.uint8)
            scores.append(decibels(rgba.reshape(rung, rung, 4)[..., :3], picture))
            times.append(drawn["milliseconds"])
        rungs[str(rung)] = {
            "frames": len(scores),
            "least_decibels": round(min(scores), 2),
            "mean_decibels": round(float(np.mean(scores)), 2),
            "median_milliseconds": round(median(times), 1),
        }
    played = page.evaluate(_PLAY % (1000 * PLAYED_SECONDS))
    offsets = np.abs(played["offsets"])
    return {
        "renderer": page.evaluate("sglatPlayer.player.stage.renderer.kind"),
        "first_picture_seconds": round(first / 1000, 2) if isinstance(first, int | float) else None,
        "rungs": rungs,
        "played": {
            "has_sound": played["sound"],
            "note": played["note"],
            "pictures": len(played["offsets"]),
            "seconds": PLAYED_SECONDS,
            "frame_seconds": round(played["frame_seconds"], 4),
            "median_offset_seconds": round(float(np.median(offsets)), 4) if len(offsets) else None,
            "largest_offset_seconds": round(float(offsets.max()), 4) if len(offsets) else None,
        },
        "console_errors": list(page.complaints),
        "message": page.evaluate(MESSAGE),
    }


def main() -> None:
    """Measure all files with all renderers and write a record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("clips", type=Path, nargs="+", help=".sglat files with sound")
    parser.add_argument("--frames", type=int, default=1 << 20, help="most frames of a file")
    parser.add_argument("--renderers", default="webgpu,webgl2,cpu", help="in order, by commas")
    chosen = parser.parse_args()
    run = provenance("python -m sglat_lab.bench.player")
    clips: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for path in chosen.clips:
            with path.open("rb") as file:
                rungs = Decoder(file, config=DecodeConfig(device="cpu")).rungs
                file.seek(0)
                total = describe(file)["motion"]["frames"]
                file.seek(0)
                html = page_of_file(file, path.name)
            address = Path(folder) / f"{path.stem}.html"
            address.write_text(html, "utf-8")
            wanted = range(0, total, EVERY)[: chosen.frames]
            sides = sorted({rungs[0], rungs[-1]})
            expected = {side: expected_pictures(path, wanted, side) for side in sides}
            figures = {}
            for kind in chosen.renderers.split(","):
                with Browser(*(WEBGPU if kind == "webgpu" else ())) as browser:
                    view = browser.page()
                    figures[kind] = measure(view, f"{address.as_uri()}?renderer={kind}", expected)
                print(path.stem, figures[kind], flush=True)
            clips[path.stem] = {"page_bytes": len(html), "renderers": figures}
            write_page(chosen.out, {"clips": clips, "runs": [run]})


if __name__ == "__main__":
    main()
