"""Pages of `benchmarks/results`, each made from its JSON record.

    python -m sglat_lab.report.pages benchmarks/results

writes `<name>.md` for each `<name>.json` of the folder. Figures, targets, remarks and provenance
come from the record; explanations of the method stand here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from sglat.files import write_atomically
from sglat_lab.report.document import (
    Figure,
    Record,
    Table,
    about,
    caveats,
    cells,
    figure_table,
    headline,
    misses,
    number,
    page,
    remarks,
    target_table,
    targets_of,
)
from sglat_lab.report.pages_networks import (
    INDEPENDENCE,
    faces_page,
    mini_page,
    synthesis_page,
    winograd_page,
)
from sglat_lab.report.tables_cost import long_decodes, tables

MOVING_DEGREES: Final = 5.0  # between the 2nd and 98th percentile: the head turns
MOVING_MOUTH: Final = 0.06  # likewise, inner lips over the distance of the eyes: speech
MOVING_EYES: Final = 0.12  # likewise, aspect ratio: blinks


def _correlation(name: str, label: str, least: float | None = None, moving: float = 0.0) -> Figure:
    path = f"figures/signals/{name}"
    needs = None if least is None else f"{path}/span"
    return Figure(
        label=f"r {label}", path=f"{path}/r", least=least, needs=needs, needs_least=moving
    )


def _quality(key: str, label: str, digits: int, *, has_target: bool = True) -> list[Figure]:
    below = f"figures/inverter/{key}" if has_target else None
    return [
        Figure(label=label, path=f"figures/ours/{key}", digits=digits, below=below),
        Figure(label="– inverter alone", path=f"figures/inverter/{key}", digits=digits),
    ]


CLIP_FIGURES: Final = (
    Figure(label="frames", path="frames", digits=0),
    Figure(label="motion hash verified", path="verified", least=1, unit="yes"),
    Figure(label="sound bit for bit", path="audio_is_bit_exact", least=1, unit="yes"),
    Figure(label="A/V offset (frames)", path="av_offset_frames", most=1),
    Figure(label="encode (s/frame)", path="seconds_per_frame"),
    Figure(label="encode, as 250 frames (s/frame)", path="seconds_per_frame_250", most=2.5),
    Figure(label="decode (frames/s)", path="decode_frames_per_second", digits=1, least=25),
    *_quality("perceptual_face", "perceptual, face", 4),
    *_quality("identity_loss", "identity loss", 4),
    *_quality("psnr_face", "PSNR, face (dB)", 2, has_target=False),
    Figure(label="jitter / source's", path="figures/jitter_ratio", most=1.2),
    _correlation("yaw", "yaw", 0.9, MOVING_DEGREES),
    _correlation("pitch", "pitch", 0.9, MOVING_DEGREES),
    _correlation("mouth", "mouth opening", 0.85, MOVING_MOUTH),
    _correlation("eyes", "eye opening", 0.7, MOVING_EYES),
    _correlation("blink_shape", "blink blendshape"),
    _correlation("jaw_shape", "jaw blendshape"),
    _correlation("gaze_along", "gaze along the eye"),
    _correlation("gaze_across", "gaze across the eye"),
    Figure(label="motion (kbit/s at 25 fps)", path="motion_kbit_per_second", most=1.2),
    Figure(label="identity (kB)", path="identity_kilobytes", digits=1, most=64),
    Figure(label="at 8 kB: perceptual, face", path="small/perceptual_face", digits=4),
    Figure(label="at 8 kB: identity loss", path="small/identity_loss", digits=4),
    Figure(label="at 8 kB: PSNR, face (dB)", path="small/psnr_face"),
)
HELD_OUT_FIGURES: Final = (
    Figure(label="PSNR", path="mean/others/psnr", unit="dB", least=28),
    Figure(label="LPIPS-like", path="mean/others/perceptual", digits=4, most=0.028),
    Figure(label="cosine", path="mean/others/identity", digits=3, least=0.85),
)


def bench_page(record: Record) -> str:
    """Return the page of `sgl-bench`: of a whole record, or of one whose tables are kept."""
    if "tables" in record:
        lines, notes, made = record["about"], record["caveats"], record["tables"]
        parts: list[str | Table] = [record["headline"], *(f"* {note}" for note in notes)]
        return _bench(parts, [Table(**one) for one in made], lines, record["runs"])
    parts = [headline(record), *(f"* {note}" for note in caveats(record))]
    return _bench(parts, tables(record), about(record), [record["about"]])


def _bench(
    parts: list[str | Table], made: list[Table], lines: list[str], runs: list[Record]
) -> str:
    first, notes = parts[0], [str(part) for part in parts[1:]]
    settings = Table(title="Settings", head=[], rows=[], notes=["\n".join(f"* {x}" for x in lines)])
    return page("Benchmark", [first, "\n".join(notes), *made, settings], runs)


def clips_page(record: Record) -> str:
    """Return the page of `sglat_lab.bench.clips`."""
    clips: dict[str, Record] = record["clips"]
    figures = targets_of(record)
    parts: list[str | Table] = [
        "Whole clips at the default settings, encoded, decoded, verified and measured; each figure "
        "beside its target. Identity and perceptual distance also for the inverter's own "
        "reconstruction.",
        INDEPENDENCE,
        *remarks(record, "conditions"),
        _whole_crops(clips, record.get("mean")),
        figure_table(clips, figures, "Figures and targets"),
        *remarks(record, "figures"),
    ]
    if record.get("alone"):
        parts.append(_alone(record["alone"]))
    parts.append(_spans(clips))
    if record.get("held_out"):
        targets = target_table(record["held_out"], "Targets of frames that were not tuned on")
        parts += [held_out_table(record["held_out"]), targets]
        parts += remarks(record, "held_out")
    parts.append("## Swaps, resuming, long decoding")
    parts.append(f"{record['swaps']} swaps written, verified and decoded.")
    if record.get("resume"):
        parts.append(_resume(record["resume"]))
    if record.get("long"):
        parts.append(long_decodes(record["long"]))
    parts += remarks(record, "long")
    missed = misses(clips, figures) or ["nothing"]
    parts += ["## Missed targets", "\n".join(f"* {line}" for line in missed)]
    loads = ", ".join(
        f"{name} {clip['load_before_encoding']}/{clip['load_before_decoding']}"
        for name, clip in clips.items()
    )
    parts.append(f"Load before encoding/decoding: {loads}.")
    for title in ("Small identities", "Visual inspection", "Not measured"):
        if remarks(record, title):
            parts += [f"## {title}", *remarks(record, title)]
    return page("The codec on real clips", parts, record["runs"])


WHOLE: Final = (("psnr", 2), ("perceptual", 4), ("cosine", 3), ("ssim", 3), ("ms_ssim", 3))


def _whole_crops(clips: Mapping[str, Record], mean: Record | None) -> Table:
    rows = []
    for name, clip in clips.items():
        row = [name]
        for key, digits in WHOLE:
            ours, own = (clip["figures"][who].get(key) for who in ("ours", "inverter"))
            row.append(number(ours, digits) + (f" ({own:.{digits}f})" if own is not None else ""))
        rows.append(row)
    if mean is None:
        keys = [key for key, _ in WHOLE]
        mean = {
            key: sum(values) / len(values)
            for key in keys
            if (values := [c["figures"]["ours"][key] for c in clips.values()
                           if key in c["figures"]["ours"]])
        }  # fmt: skip
    rows.append(["**mean**", *cells(mean, WHOLE)])
    return Table(
        title="Whole crop, in brackets the inverter alone",
        head=["clip", "PSNR dB", "LPIPS-like", "cosine", "SSIM", "MS-SSIM"],
        rows=rows,
    )


def _alone(runs: Sequence[Record]) -> Table:
    columns = (("clip", 0), ("threads", 0), ("seconds_per_frame", 2), ("seconds_per_frame_250", 2),
               ("decode_frames_per_second", 1))  # fmt: skip
    return Table(
        title="One process alone on the machine",
        head=["clip", "threads", "encode s/frame", "as 250 frames", "decode frames/s"],
        rows=[cells(run, columns) for run in runs],
    )


def _spans(clips: Mapping[str, Record]) -> Table:
    keys = ("yaw", "pitch", "mouth", "eyes", "gaze_along", "gaze_across")
    columns = [(f"figures/signals/{key}/span", 2) for key in keys]
    return Table(
        title="Motion of the source",
        head=["clip", *keys],
        rows=[[name, *cells(clip, columns)] for name, clip in clips.items()],
        notes=["From the 2nd to the 98th percentile; yaw and pitch in degrees."],
    )


def _resume(found: Record) -> str:
    moments = ", ".join(f"{second:g}" for second in found["seconds"])
    outcome = "the same bytes as" if found["is_same"] else "OTHER BYTES than"
    return (
        f"Resuming: killed with SIGKILL after {moments} s of a run of "
        f"{found['undisturbed_seconds']:g} s (one second of video, 15 tuning steps): {outcome} the "
        "undisturbed run."
    )


def held_out_table(record: Record) -> Table:
    """Return the figures of `sglat_lab.bench.held_out` and their means."""
    keys = (("psnr", 2), ("perceptual", 4), ("identity", 3))
    columns = [(f"{who}/{key}", digits) for who in ("others", "tuned") for key, digits in keys]
    rows = [
        [name, *cells(clip, [("tuned_frames", 0), ("identity_kilobytes", 0), ("others/count", 0)]),
         *cells(clip, columns)]
        for name, clip in record["clips"].items()
    ]  # fmt: skip
    rows.append(["**mean**", "", "", "", *cells(record["mean"], columns)])
    return Table(
        title="Frames that were not tuned on",
        head=["clip", "tuned", "identity kB", "others", "PSNR dB", "LPIPS-like", "cosine",
              "tuned: PSNR dB", "LPIPS-like", "cosine"],
        rows=rows,
        notes=[
            "A person tuned on a few frames of the whole clip; motion of the others fitted frame "
            "by frame, each with a Jacobian of its own and more steps than the encoder takes, not "
            "quantized.",
        ],
    )  # fmt: skip


def rate_page(record: Record) -> str:
    """Return the page of `sglat_lab.bench.rate`."""
    parts: list[str | Table] = [
        "*Ours* counts the motion groups with their heads and the motion model in the header; "
        "nothing is trained on the clips but that model, which travels in the file. *GFV SEI "
        "style*: difference to the frame before, 0-order Exp-Golomb, sign. *GFVC style*: "
        "Exp-Golomb bits through an adaptive coder that starts anew and is flushed to bytes in "
        "each frame. *zstd*: differences as int16 byte planes, level 19. All coders get the same "
        "integers. Ten seconds of motion at 40 bits a frame are 1250 bytes.",
        target_table(record),
        *remarks(record, "targets"),
    ]
    if "real" in record:
        real = record["real"]
        parts += [_motion("Real files, bits a frame", real), _file_sizes(real["sizes"])]
    if "simulated" in record:
        parts += ["## Simulated motion", SIMULATION, *remarks(record, "simulated")]
        for kind, found in record["simulated"].items():
            parts.append(_motion(f"Simulation by {kind}, default steps, bits a frame", found))
            parts.append(_steps(kind, found["steps"]))
    still, overhead, seek = record["still"], record["overhead"], record["seek"]
    columns = (("file", 0), ("bytes", 0), ("content", 0), ("frame", 0), ("header", 0),
               ("frame_percent", 2), ("both_percent", 2))  # fmt: skip
    parts += [
        Table(
            title="Still frames",
            head=["frames", "bits a frame without the first", "all told"],
            rows=[cells(r, (("frames", 0), ("inside", 2), ("all", 2))) for r in still["rows"]],
            notes=["Files whose frames are all equal. A new group starts every 256 frames; from "
                   "500 frames on there is a motion model."],
        ),
        _latents(record["latents"]),
        Table(
            title="Container overhead of a 60 s clip",
            head=["file", "bytes", "identity + motion", "frame", "header", "frame %",
                  "frame + header %"],
            rows=[cells(row, columns) for row in overhead["rows"]],
            notes=["1500 frames, no sound. *Frame*: signature, chunk heads, checksums, INDX, ENDS. "
                   "*Header*: HEAD without the motion model (decoder id 32 bytes, 34 steps 136 "
                   "bytes, rates, names)."],
        ),
        Table(
            title="Time to read, one core",
            head=["what", "bytes", "CPU s", "wall s"],
            rows=[[name, *cells(row, (("bytes", 0), ("cpu_seconds", 2), ("wall_seconds", 2)))]
                  for name, row in record["reading"].items()],
            notes=["Least of five runs; the machine is shared, so CPU time counts."],
        ),
        "## Seek",
        f"File of {seek['file_bytes']} bytes, {seek['groups']} groups; a seek to every seventh "
        f"second. Opening (header, end, index) reads {seek['opening_bytes']} bytes; each seek then "
        f"reads at most {seek['seek_groups']} group, {seek['seek_bytes']} bytes.",
    ]  # fmt: skip
    return page("Rate figures", parts, record["runs"])


SIMULATION: Final = (
    "No real encodes. 34 channels are derived from a face landmarker on every frame of the clips "
    "(`sglat_lab.bench.motion_tracks` states every choice). The step of a control at the default "
    "quality moves its region by 0.3 px RMS at 128 px, so rounding moves it by at most 0.15 px; in "
    "the second simulation it is 1/32 of a blendshape's range. The landmarker works in video mode "
    "and smooths over time, so real encodes may be noisier and cost more. Plain rounding; no "
    "encoder-side smoothing."
)


def _motion(title: str, found: Record) -> Table:
    rows = [("**mean of clips**", found["mean"]), ("mean of frames", found["mean_of_frames"])]
    return Table(
        title=title,
        head=["clip", "frames", "ours", "SEI style", "smaller by", "GFVC style", "zstd",
              "still frames"],
        rows=[
            [name, *cells(row, (("frames", 0), ("ours", 1), ("sei", 1))), f"{row['saving']:.1%}",
             *cells(row, (("gfvc", 1), ("zstd", 1))), f"{row['still']:.0%}"]
            for name, row in [*found["clips"].items(), *rows]
        ],
        notes=[f"Least saving of a clip: {found['worst_saving']:.1%}."],
    )  # fmt: skip


def _file_sizes(sizes: dict[str, Record]) -> Table:
    keys = ("bytes", "identity", "layer_0", "placement", "motion", "sound", "frame")
    return Table(
        title="Bytes of real files",
        head=["file", *(key.replace("_", " ") for key in keys), "frame %"],
        rows=[
            [name, *cells(size, [(key, 0) for key in keys]),
             f"{100 * size['frame'] / size['bytes']:.2f}"]
            for name, size in sizes.items()
        ],
    )  # fmt: skip


def _steps(kind: str, rows: Sequence[Record]) -> Table:
    return Table(
        title=f"Simulation by {kind}, other steps, mean of clips",
        head=["steps times", "ours", "SEI style", "smaller by"],
        rows=[[f"{row['factor']:g}", *cells(row, (("ours", 1), ("sei", 1))), f"{row['saving']:.1%}"]
              for row in rows],
    )  # fmt: skip


def _latents(found: Record) -> Table:
    what = "W+ codes of an inverter on one frame of each clip, minus the mean latent. "
    if not found["is_real"]:
        what = "No latents were given (`--latents`): independent Gaussians. "
    columns = (("name", 0), ("shape", 0), ("within/bytes", 0), ("within/step", 3),
               ("within/error", 3), ("coarse/bytes", 0), ("coarse/step", 2),
               ("coarse/error", 3))  # fmt: skip
    return Table(
        title="Identity, layer 0",
        head=["latent", "shape", "bytes, within budget", "step", "error", "bytes", "step", "error"],
        rows=[cells(row, columns) for row in found["rows"]],
        notes=[f"{what}Error: RMS of value minus dequantized value, in standard deviations of the "
               "value."],
    )  # fmt: skip


def constriction_page(record: Record) -> str:
    """Return the page of our motion coder against the library's."""
    columns: Mapping[str, str] = record["columns"]
    rows = [
        [name, *cells(row, [("frames", 0), *((key, 1) for key in columns)])]
        for name, row in record["tracks"].items()
    ]
    table = Table(title="Bits a frame", head=["integers", "frames", *columns.values()], rows=rows)
    return page("Motion coder against constriction", [record["method"], table], record["runs"])


PAGES: Final[dict[str, Callable[[Record], str]]] = {
    "RESULTS": bench_page,
    "clips": clips_page,
    "constriction": constriction_page,
    "faces": faces_page,
    "mini": mini_page,
    "rate": rate_page,
    "synthesis": synthesis_page,
    "winograd": winograd_page,
}


def write_pages(folder: Path) -> list[Path]:
    """Write the page of each record in a folder, and return the pages."""
    made = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        target = path.with_suffix(".md")
        write_atomically(target, PAGES[path.stem](record))
        made.append(target)
    return made


def main() -> None:
    """Write all pages of a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    for path in write_pages(parser.parse_args().folder):
        print(path)


if __name__ == "__main__":
    main()
