"""Whether the watermark is found after common changes, what it costs, and its false alarms.

python -m sglat_lab.bench.marks CLIPS OUT.json --decoded FOLDER --file FILE.sglat

Each clip is marked and changed once as a whole; trials are stretches of it from random times.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.marks.detect import Detection, Footage, detect, search
from sglat.marks.watermark import DEFAULT_KEY, ID_BYTES, Watermark
from sglat_lab.report.pages import provenance, write_page

Frames = NDArray[np.uint8]
Change = Callable[[Frames, float], tuple[Frames, float]]

CLIPS: Final = ("d0", "d6", "d9", "d10", "d20", "s20")
SIZES: Final = {128: 300, 512: 150}  # frames of each clip
STRETCH_SECONDS: Final = 4.0
TRIALS: Final = 34  # of a clip and change: 204 of six clips
FALSE_TRIALS: Final = {128: 274, 512: 60}  # of a clip: 2,004 in all
IDENTIFIERS: Final = {128: 2, 512: 1}  # of a clip
STILLS: Final = 4  # of a clip and identifier
SMOOTHING: Final = {128: 0.7, 512: 1.0}
"""Pixels of the Gaussian over a source's crop that stands in for a decoded picture."""
X264: Final = {"codec": "libx264"}
CODECS: Final[dict[str, dict[str, Any]]] = {
    "x264 CRF 23": {**X264, "crf": 23},
    "x264 CRF 28": {**X264, "crf": 28},
    "x264 CRF 33": {**X264, "crf": 33},
    "x265 CRF 28": {"codec": "libx265", "crf": 28, "x265-params": "log-level=error"},
    "VP9 CRF 36": {"codec": "libvpx-vp9", "crf": 36, "b": 0, "deadline": "good", "cpu-used": 4},
    "AV1 CRF 40": {"codec": "libsvtav1", "crf": 40, "preset": 9},
}
TARGETS: Final = {
    "x264 CRF 23": 1.0, "x264 CRF 28": 1.0, "x264 CRF 33": 0.95, "scale 0.5": 0.95,
    "crop 10 %": 0.95, "paste-back": 0.95,
}  # fmt: skip
SMALL_ONLY: Final = (
    "x265 CRF 28",
    "VP9 CRF 36",
    "scale 2",
    "25 to 30 or 30 to 25 fps",
    "brightness",
    "gamma 0.8",
)


def transcode(frames: Frames, rate: float, **options: Any) -> tuple[Frames, int]:
    """Return frames after a codec, and the bytes of its packets."""
    name = options.pop("codec")
    height, width = frames.shape[1:3]
    buffer, size = io.BytesIO(), 0
    with av.open(buffer, "w", format="matroska") as container:
        texts = {key: str(value) for key, value in options.items()}
        stream: Any = container.add_stream(
            name, rate=Fraction(rate).limit_denominator(1001), options=texts
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in [*frames, None]:
            picture = None if frame is None else av.VideoFrame.from_ndarray(frame, format="rgb24")
            for packet in stream.encode(picture):
                size += packet.size
                container.mux(packet)
    buffer.seek(0)
    with av.open(buffer, "r") as source:
        decoded = [f.to_ndarray(format="rgb24") for f in source.decode(video=0)]
    return np.stack(decoded).astype(np.uint8), size


def scaled(frames: Frames, factor: float) -> Frames:
    """Return frames of another size, bicubically."""
    height, width = (int(side * factor) // 2 * 2 for side in frames.shape[1:3])
    return np.stack(
        [
            av.VideoFrame.from_ndarray(frame, format="rgb24")
            .reformat(width, height, interpolation="BICUBIC")
            .to_ndarray(format="rgb24")
            for frame in frames
        ]
    )


def cropped(frames: Frames, rate: float) -> tuple[Frames, float]:
    """Return frames without a tenth of each side, off the grid of blocks."""
    side = frames.shape[1]
    keep = side * 9 // 10 // 2 * 2
    return frames[:, 5 : 5 + keep, 3 : 3 + keep], rate


def pasted(frames: Frames, rate: float) -> tuple[Frames, float]:
    """Return frames of twice the side that hold these in the middle, off the grid of blocks."""
    full = scaled(frames[:, ::-1, ::-1], 2)
    side, at = frames.shape[1], frames.shape[1] // 2 + 5
    full[:, at : at + side, at + 2 : at + 2 + side] = frames
    return full, rate


def other_rate(frames: Frames, rate: float) -> tuple[Frames, float]:
    """Return 25 frames a second as 30 and others as 25, by repeating or leaving out."""
    new = 30.0 if rate < 27 else 25.0
    places = np.arange(int(len(frames) * new / rate)) * rate / new
    return frames[np.minimum(np.round(places).astype(int), len(frames) - 1)], new


CHANGES: Final[dict[str, Change]] = {
    "scale 0.5": lambda frames, rate: (scaled(frames, 0.5), rate),
    "scale 2": lambda frames, rate: (scaled(frames, 2), rate),
    "crop 10 %": cropped,
    "paste-back": pasted,
    "25 to 30 or 30 to 25 fps": other_rate,
    "brightness": lambda f, rate: (np.clip(f * 0.85 + 25, 0, 255).astype(np.uint8), rate),
    "gamma 0.8": lambda f, rate: ((255 * (f / 255) ** 0.8 + 0.5).astype(np.uint8), rate),
}


def read(path: Path, count: int) -> tuple[Frames, float]:
    """Return the first frames of a video and its rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [f.to_ndarray(format="rgb24") for f in islice(container.decode(stream), count)]
        return np.stack(frames).astype(np.uint8), float(stream.average_rate or 25)


def material(name: str, size: int, clips: Path, decoded: Path) -> tuple[Frames, float, str]:
    """Return frames of a clip, their rate, and where they come from.

    Decoded pictures if there are any; else the source's square around the face, smoothed. Short
    ones run forwards and backwards.
    """
    count, path = SIZES[size], decoded / f"{name}.{size}.mkv"
    if path.exists():
        frames, rate = read(path, count)
        origin = "decoded"
    else:
        pictures, rate = read(clips / f"{name}.mp4", count)
        height, width = pictures.shape[1:3]
        side = min(height, width) // 2 * 2
        top = (height - side) // 4  # faces in tall pictures are above the middle
        left = (width - side) // 2
        square = pictures[:, top : top + side, left : left + side]
        sigma = SMOOTHING[size]
        small = scaled(square, size / side).astype(np.float32)
        frames = np.stack([gaussian_filter(p, (sigma, sigma, 0)) for p in small])
        frames, origin = (frames + 0.5).astype(np.uint8), "source, smoothed"
    while len(frames) < count:
        frames = np.concatenate([frames, frames[-2:0:-1]])
    return frames[:count], rate, origin


@dataclass
class Tally:
    """Trials of one change, and those that gave the right identifier."""

    trials: int = 0
    found: int = 0
    wrong: int = 0
    scores: list[float] = field(default_factory=list)

    def add(self, result: Detection, identifier: bytes) -> None:
        """Count one trial."""
        self.trials += 1
        self.found += result.found and result.id == identifier
        self.wrong += result.found and result.id != identifier
        self.scores.append(result.score)

    def to_json(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            "trials": self.trials, "found": self.found, "wrong": self.wrong,
            "share": round(self.found / max(1, self.trials), 4),
            "score_tenth": round(float(np.percentile(self.scores or [0], 10)), 2),
        }  # fmt: skip


def stretches(frames: Frames, rate: float, count: int, chance: Any) -> Iterable[Any]:
    """Yield footage and random spans of it."""
    footage = Footage(frames, (at / rate for at in range(len(frames))))
    last = max(0.0, len(frames) / rate - STRETCH_SECONDS)
    for start in chance.uniform(0, last, count):
        yield footage, (start, start + STRETCH_SECONDS)


def measure(name: str, size: int, clips: Path, decoded: Path) -> dict[str, Any]:
    """Return figures of one clip at one size, with raw tallies."""
    frames, rate, origin = material(name, size, clips, decoded)
    chance = np.random.default_rng([size, *name.encode()])
    unmarked, plain_bytes = transcode(frames, rate, **CODECS["x264 CRF 23"])
    found: dict[str, Tally] = {}
    still, added, psnrs, spent = Tally(), [], [], []
    for number in range(IDENTIFIERS[size]):
        digest = hashlib.sha256(f"{name} {size} {number}".encode()).digest()
        identifier = digest[:ID_BYTES]
        watermark = Watermark(identifier)
        began = time.process_time()
        marked = np.stack([watermark.mark_at(f, at / rate) for at, f in enumerate(frames)])
        spent.append((time.process_time() - began) / len(frames))
        error = np.square(marked.astype(np.float32) - frames).mean()
        psnrs.append(float(10 * np.log10(255**2 / error)))
        for case, shown, new_rate, coded_bytes in changed(marked, rate, size):
            if case == "x264 CRF 23":
                kept = shown
                added.append(coded_bytes / plain_bytes - 1)
            tally = found.setdefault(case, Tally())
            trials(shown, new_rate, identifier, chance, tally, TRIALS // IDENTIFIERS[size])
        for frame in marked[np.linspace(0, len(marked) - 1, STILLS).astype(int)]:
            still.add(detect([frame]), identifier)
    return {
        "origin": origin,
        "frames_per_second": rate,
        "psnr": round(min(psnrs), 2),
        "bytes_unmarked": plain_bytes,
        "added_share": round(float(np.mean(added)), 4),
        "mark_milliseconds": round(1000 * min(spent), 2),
        "found": {case: tally.to_json() for case, tally in found.items()},
        "false": false_alarms(unmarked, kept, rate, FALSE_TRIALS[size], chance),
        "stills": still.to_json(),
    }


def changed(marked: Frames, rate: float, size: int) -> Iterable[tuple[str, Frames, float, int]]:
    """Yield each change's name, frames, rate and bytes."""
    for case, options in CODECS.items():
        if size == 128 or case not in SMALL_ONLY:
            shown, coded_bytes = transcode(marked, rate, **options)
            yield case, shown, rate, coded_bytes
    for case, change in CHANGES.items():
        if size == 128 or case not in SMALL_ONLY:
            frames, new_rate = change(marked, rate)
            shown, coded_bytes = transcode(frames, new_rate, **CODECS["x264 CRF 23"])
            yield case, shown, new_rate, coded_bytes


def trials(
    frames: Frames, rate: float, identifier: bytes, chance: Any, tally: Tally, count: int
) -> None:
    """Count what is found in random stretches of changed frames."""
    for footage, span in stretches(frames, rate, count, chance):
        tally.add(search(footage, DEFAULT_KEY, span), identifier)


def false_alarms(
    unmarked: Frames, marked: Frames, rate: float, count: int, chance: Any
) -> dict[str, Any]:
    """Return alarms and scores of unmarked stretches and of stretches marked by another key."""
    scores: dict[str, list[float]] = {"unmarked": [], "other_key": []}
    alarms = dict.fromkeys(scores, 0)
    for kind, frames in (("unmarked", unmarked), ("other_key", marked)):
        for at, (footage, span) in enumerate(stretches(frames, rate, count // 2, chance)):
            is_default = kind == "unmarked" and at % 2 == 0
            result = search(footage, DEFAULT_KEY if is_default else b"other %d" % at, span)
            scores[kind].append(round(result.score, 2))
            alarms[kind] += result.found
    return {"alarms": alarms, "scores": scores}


def decode_milliseconds(path: Path, size: int) -> float:
    """Return the processor's time a frame of a file that is decoded by one thread."""
    torch.set_num_threads(1)
    with path.open("rb") as file:
        decoder = Decoder(file, config=DecodeConfig(device="cpu", size=size))
        pictures = iter(decoder.frames())
        for _ in islice(pictures, 8):
            pass
        began, count = time.process_time(), sum(1 for _ in islice(pictures, 24))
        return round(1000 * (time.process_time() - began) / count, 1)


def summary(clips: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all clips of one size together."""
    cases: dict[str, dict[str, Any]] = {}
    for case in next(iter(clips.values()))["found"]:
        rows = [clip["found"][case] for clip in clips.values()]
        tried, right = (sum(row[key] for row in rows) for key in ("trials", "found"))
        cases[case] = {
            "trials": tried, "found": right, "wrong": sum(row["wrong"] for row in rows),
            "share": round(right / tried, 4), "target": TARGETS.get(case),
            "worst_clip": round(min(row["share"] for row in rows), 3),
        }  # fmt: skip
    added = [clip["added_share"] for clip in clips.values()]
    return {
        "found": cases,
        "psnr_least": min(clip["psnr"] for clip in clips.values()),
        "added_share_mean": round(float(np.mean(added)), 4),
        "added_share_most": max(added),
        "mark_milliseconds": round(
            float(np.median([clip["mark_milliseconds"] for clip in clips.values()])), 2
        ),
        "stills_found": sum(clip["stills"]["found"] for clip in clips.values()),
        "stills": sum(clip["stills"]["trials"] for clip in clips.values()),
    }


def false_summary(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return false alarms and the highest scores without a mark, of all sizes."""
    result: dict[str, Any] = {}
    for kind in ("unmarked", "other_key"):
        rows = [clip["false"] for one in sizes.values() for clip in one["clips"].values()]
        scores = sorted(score for row in rows for score in row["scores"][kind])
        result[kind] = {
            "stretches": len(scores), "alarms": sum(row["alarms"][kind] for row in rows),
            "score_median": scores[len(scores) // 2], "score_99": scores[len(scores) * 99 // 100],
            "score_most": scores[-1],
        }  # fmt: skip
    return result


def main() -> None:
    """Measure all clips at both sizes and write a record; a part that is there is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, help="folder of the six source clips")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--decoded", type=Path, required=True, help="folder of CLIP.SIZE.mkv")
    parser.add_argument(
        "--file", type=Path, required=True, help=".sglat file whose decode is timed"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--parts", type=Path, help="folder where finished clips are kept")
    options = parser.parse_args()
    sizes: dict[str, Any] = {}
    for size in options.sizes:
        clips = {}
        for name in CLIPS:
            part = options.parts / f"{name}.{size}.json" if options.parts else None
            if part is not None and part.exists():
                clips[name] = json.loads(part.read_text(encoding="utf-8"))
                continue
            clips[name] = measure(name, size, options.clips, options.decoded)
            if part is not None:
                part.write_text(json.dumps(clips[name]), encoding="utf-8")
        decoding = decode_milliseconds(options.file, size)
        total = summary(clips)
        total["decode_milliseconds"] = decoding
        total["time_share"] = round(total["mark_milliseconds"] / decoding, 4)
        sizes[str(size)] = {"clips": clips, "all": total}
    write_page(
        options.out,
        {
            "sizes": sizes,
            "false_alarms": false_summary(sizes),
            "stretch_seconds": STRETCH_SECONDS,
            "runs": [provenance("python -m sglat_lab.bench.marks")],
        },
        "marks",
    )


if __name__ == "__main__":
    main()
