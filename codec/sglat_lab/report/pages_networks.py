"""Pages of the networks: time of synthesis, the embedded bundle, its face networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sglat_lab.report.document import (
    Figure,
    Record,
    Table,
    cells,
    page,
    remarks,
    target_table,
    targets_of,
)

INDEPENDENCE: Final = (
    "**Not independent**: generator and inverter of the embedded bundle were trained with the "
    "networks behind LPIPS-like distance (SqueezeNet features) and identity (MobileFaceNet) among "
    "their losses, and the encoder's own perceptual and identity networks were taught by them. "
    "That favours sglat in both figures. Neither network runs in the encoder."
)
SYNTHESIS_FIGURES: Final = (Figure(label="reference / fast", path="ratio/fast", least=2),)
LEAST_GAIN: Final = 0.1  # of the time of a layer, below which the scheme is not worth its code
STILL_KEYS: Final = (("psnr", 2), ("perceptual", 3), ("identity", 3))


def synthesis_page(record: Record) -> str:
    """Return the page of `sglat_lab.bench.synthesis`."""
    parts: list[str | Table] = [
        "One frame at a time, float32, random weights, StyleSpace vectors to picture; "
        f"{record['clock']} time, best of {record['rounds']} interleaved rounds in one run. A "
        "ratio below its target is bold."
    ]
    targets = targets_of(record)
    for machine in record["machines"]:
        columns = list(machine["rows"][-1]["milliseconds"])
        rows = []
        for row in machine["rows"]:
            ratios = cells(row, [(f"ratio/{name}", 2) for name in columns[1:]])
            at = columns.index("fast") - 1
            if any(target.is_met(row) is False for target in targets):
                ratios[at] = f"**{ratios[at]}**"
            times = cells(row, [(f"milliseconds/{name}", 0) for name in columns])
            ends = [f"{row['difference']:.1e}", f"{row['largest']:.0f}"]
            rows.append([row["generator"], row["device"], *times, *ratios, *ends])
        head = ["generator", "device", *(f"{name} [ms]" for name in columns)]
        head += [*(f"reference / {name}" for name in columns[1:]), "largest difference"]
        notes = [f"Target: {t.label} {t.target()}." for t in targets]
        title = machine["name"]
        parts.append(Table(title=title, head=[*head, "of values to"], rows=rows, notes=notes))
    return page("Synthesis time per frame", [*parts, *remarks(record, "end")], record["runs"])


def winograd_page(record: Record) -> str:
    """Return the page of `sglat_lab.bench.synthesis --layers`."""
    columns = (("generator", 0), ("layer", 0), ("kind", 0), ("resolution", 0),
               ("milliseconds/plain", 1), ("milliseconds/winograd", 1))  # fmt: skip
    rows = []
    for layer in record["layers"]:
        widths = " to ".join(map(str, layer["channels"]))
        gain = f"{100 * layer['gain']:.0f}"
        if layer["gain"] < LEAST_GAIN:
            gain = f"**{gain}**"
        rows.append([*cells(layer, columns), widths, gain, f"{layer['difference']:.1e}"])
    table = Table(
        title="Layers",
        head=["generator", "layer", "kind", "px", "plain [ms]", "Winograd [ms]", "channels",
              "saved [%]", "largest difference"],
        rows=rows,
        notes=[f"Target: ≥ {100 * LEAST_GAIN:.0f} % saved in each layer; one below it is bold."],
    )  # fmt: skip
    lead = (
        "Convolution of single layers of the fast path by Winograd's scheme and plainly; one "
        f"frame, float32, random weights, {record['clock']} time, best of {record['rounds']} "
        "interleaved rounds."
    )
    return page("Winograd's scheme layer by layer", [lead, table], record["runs"])


def mini_figures(meters: Sequence[str]) -> list[Figure]:
    """Return the targets of the embedded bundle.

    Args:
        meters: names of what measured poses.
    """
    found = []
    for path, name in (("refined/end", "inversion as the encoder does it"),
                       ("inversion", "inverter alone")):  # fmt: skip
        found += [
            Figure(label=f"{name}, PSNR", path=f"{path}/psnr", unit="dB", least=23.5),
            Figure(label=f"{name}, LPIPS-like", path=f"{path}/perceptual", digits=3, most=0.07),
            Figure(label=f"{name}, MobileFaceNet cosine", path=f"{path}/identity", digits=3,
                   least=0.45),
        ]  # fmt: skip
    for axis in ("yaw", "pitch"):
        for meter in meters:
            path, label = f"pose/by/{meter}/{axis}", f"{axis} by the {meter}"
            found += [
                Figure(label=f"{label}, r", path=f"{path}/r", digits=3, least=0.95),
                Figure(label=f"{label}, slope", path=f"{path}/slope", least=0.7, most=1.3),
            ]
        ends = f"pose/identity/{axis}"
        found.append(Figure(label=f"{axis}, cosine at the ends", path=ends, digits=3, least=0.6))
    return [
        *found,
        Figure(label="controls that move their region ≥ 3 times as much as the rest",
               path="controls/local", digits=0, unit="of 32", least=32),
        Figure(label="controls that keep cosine ≥ 0.8 at ±2 σ", path="controls/keeping", digits=0,
               unit="of 32", least=32),
        Figure(label="speed, batch 8, two threads", path="speed/frames_per_second", digits=1,
               unit="frames/s", least=40),
    ]  # fmt: skip


def mini_page(record: Record) -> str:
    """Return the page of `sglat_lab.bench.mini`."""
    refined, controls = record["refined"], record["controls"]
    stills = record["stills"]
    lines = (
        ("held-back stills by the inverter alone", record["inversion"]),
        ("the same, those that are refined", refined.get("start")),
        (f"those, W+ refined for {refined['steps']} steps", refined["end"]),
        ("frame B from A's latent and 34 numbers", record["transfer"]["moved"]),
        ("frame A itself against frame B", record["transfer"]["unmoved"]),
    )
    parts: list[str | Table] = [
        "Generator, inverter, pose flow and controls of the bundle by themselves, before a clip "
        "tunes them, on pictures and clips that were never trained on; tuned results are in "
        "[clips.md](clips.md).",
        INDEPENDENCE,
        target_table(record),
        f"The encoder inverts the ID frame by the inverter and {refined['steps']} steps on W+ from "
        f"there; here {refined['end']['count']} of the {stills} held-back stills are inverted so. "
        f"Least cosine of a control at ±2 σ: {controls['least_identity']:.3f}. LPIPS-like is: "
        f"{record['perceptual']}.",
        *remarks(record, "speed"),
        Table(
            title="Pictures",
            head=["what", "pictures", "PSNR dB", "LPIPS-like", "cosine"],
            rows=[[name, *cells(row, (("count", 0), *STILL_KEYS))] for name, row in lines if row],
            notes=["Refinement minimises squared error and the bundle's own perceptual distance."],
        ),
        Table(
            title="Samples",
            head=["set", "MobileFaceNet", "SqueezeNet"],
            rows=[[name, *cells(row, (("identity", 3), ("squeeze", 3)))]
                  for name, row in record["samples"]["distances"].items()],
            notes=[
                f"Squared Fréchet distance to the {stills} held-back stills, in pooled features of "
                "the last SqueezeNet level and in MobileFaceNet's unit vectors; "
                f"{record['samples']['count']} pictures each, and the mirror image of every "
                "picture, ψ = 0.7 for samples. Few pictures: the row of real training stills is "
                "the floor."
            ],
        ),
        _pose(record["pose"]),
        Table(
            title="Controls",
            head=["control", "group", "change", "ratio", "cosine", "agreement"],
            rows=[cells(row, (("name", 0), ("group", 0), ("inside", 3), ("ratio", 2),
                              ("identity", 3), ("agreement", 2))) for row in controls["rows"]],
            notes=[
                f"At ±2 σ on {controls['people']} persons. Change is the mean L1 in the region of "
                "the group, pictures in [-1, 1]; ratio is that over the mean L1 of all other "
                "pixels; regions are parsed by the bundle's own network. Agreement is the mean "
                "cosine between the changes that the control makes to different persons: 1 is the "
                "same change on everybody."
            ],
        ),
    ]  # fmt: skip
    facts = f"bundle `{record['bundle']}`, decoder id {record['decoder_id'][:8]}…"
    runs = [{**run, "what": run.get("what") or facts} for run in record["runs"]]
    return page("The weights of the embedded bundle", parts, runs)


def _pose(found: Record) -> Table:
    rows = []
    for name, axes in found["by"].items():
        for axis, line in axes.items():
            means = ", ".join(f"{angle:+d}: {mean:+.1f}" for angle, mean in line["means"])
            rows.append([name, axis, *cells(line, (("r", 3), ("slope", 2))), means])
    return Table(
        title="Pose flow",
        head=["measured by", "axis", "r", "slope", "mean found at each requested angle, degrees"],
        rows=rows,
        notes=[
            f"{found['people']} persons, half of them inverted stills, half sampled. Slope and r "
            "are of the measured angle on the requested one over all persons. FSA-Net by itself "
            "follows the labels of real pictures with a slope of 1.05 in yaw and 0.75 in pitch.",
            *found["missing"],
        ],
    )


def faces_page(record: Record) -> str:
    """Return the page of `sglat_lab.bench.faces`."""
    parts: list[str | Table] = [
        "Yardsticks: MediaPipe Face Landmarker (video mode) on the clips and in the packs' labels, "
        "the packs' masks, MobileFaceNet, LPIPS with SqueezeNet. Clips and validation rows were "
        "never trained on.",
        *remarks(record, "blindness"),
    ]
    for name, make in FACE_TABLES.items():
        if name in record:
            parts += [make(record[name]), *remarks(record, name)]
    return page("The embedded face networks, measured", parts, record["runs"])


def _detection(found: Record) -> Table:
    false = ", ".join(f"{name} {n}" for name, n in found["false_in_photographs"].items()) or "none"
    return Table(
        title="Detection: every frame of the clips on its own",
        head=["clip", "frames found", "IoU at least 0.7", "mean IoU"],
        rows=[
            [name, f"{100 * clip['found']:.0f} %", f"{100 * clip['iou_0.7']:.0f} %",
             f"{clip['mean_iou']:.3f}"]
            for name, clip in found["clips"].items()
        ],
        notes=[
            f"False faces: {found['false_in_scenery'] or 'none'} in {found['scenery']} procedural "
            f"sceneries of an unseen seed; {false} in {found['photographs']} photographs without a "
            "person."
        ],
    )  # fmt: skip


def _landmarks(found: Record) -> Table:
    keys = (("points", 2), ("iris", 2), ("pose", 2), ("blendshapes", 3), ("eyes", 3), ("jitter", 2),
            ("jitter_teacher", 2))  # fmt: skip
    rows = [
        [name, *cells(clip, keys), f"{clip['shut']} / {clip['truly_shut']}"]
        for name, clip in found["clips"].items()
    ]
    rows.append(["**all frames**", *cells(found, keys), ""])
    return Table(
        title="Landmarks: tracked through the clips",
        head=["clip", "points", "irises", "pose", "blendshapes", "eye aspect ratio", "jitter",
              "MediaPipe's", "shut eyes found / there"],
        rows=rows,
        notes=[
            "Mean errors; points, irises and jitter in percent of the inter-ocular distance, pose "
            "in degrees. Jitter is the mean length of the second difference. A blink frame is an "
            "eye below a third of the clip's median aspect ratio. Blinks: precision "
            f"{found['blink_precision']:.3f}, recall {found['blink_recall']:.3f}, F1 "
            f"{found['blink_f1']:.3f}."
        ],
    )  # fmt: skip


def _validation(found: Record) -> Table:
    return Table(
        title="Landmarks: validation rows of the packs",
        head=["faces", "points %", "irises %", "pose, degrees", "eye aspect ratio"],
        rows=[cells(found, (("faces", 0), ("points", 2), ("iris", 2), ("pose", 2), ("eyes", 3)))],
        notes=["Boxes shifted by up to 5 %."],
    )


def _parsing(found: Record) -> Table:
    classes = ", ".join(f"{name} {iou:.2f}" for name, iou in found["classes"].items())
    return Table(
        title="Parsing: held-back masks at 256 px",
        head=["mean IoU", "pixels right"],
        rows=[cells(found, (("miou", 3), ("accuracy", 3)))],
        notes=[f"By class: {classes}."],
    )


def _identity(found: Record) -> Table:
    columns = (("faces", 0), ("pairs", 0), ("pairs_same", 0), ("auc", 3), ("auc_teacher", 4),
               ("cosine_with_teacher", 2))  # fmt: skip
    return Table(
        title="Identity: held-back persons",
        head=["pictures", "pairs", "of one person", "AUC", "MobileFaceNet's AUC",
              "mean cosine with MobileFaceNet"],
        rows=[cells(found, columns)],
    )  # fmt: skip


def _perceptual(found: Record) -> Table:
    draws = ", ".join(f"{value:.4f}" for value in found["spearman_other_draws"])
    kinds = found["other_draws_mean"]
    rows = [[name, f"{value:.2f}"] for name, value in kinds.items() if name != "spearman"]
    return Table(
        title="Perceptual: pairs of distorted validation faces",
        head=["distortion", "rank correlation with LPIPS-squeeze"],
        rows=rows,
        notes=[
            f"Over all pairs of a draw, six draws that training never used: {draws}; mean "
            f"{kinds['spearman']:.3f}. The draw of validation in training: "
            f"{found['first_draw']['spearman']:.3f}. By kind: mean of the six draws; *other* is "
            "another person's face, where all distances are large and alike."
        ],
    )


def _fooled(found: Record) -> Table:
    columns = (("identity", 3), ("identity_teacher", 3), ("perceptual", 3),
               ("perceptual_teacher", 3), ("l1", 3))  # fmt: skip
    return Table(
        title="Tuning against the networks",
        head=["output", "identity cosine", "MobileFaceNet's", "perceptual", "LPIPS-like", "L1"],
        rows=[[name, *cells(found[name], columns)] for name in ("untuned", "tuned")],
        notes=[
            f"Latents and filters of the embedded generator tuned for {found['steps']} steps to "
            f"each of {found['faces']} validation stills with the encoder's loss. The networks "
            "agree with their teachers less on tuned pictures: judge a tuned generator by the "
            "teachers."
        ],
    )


def _speed(found: Record) -> Table:
    names = ("detection", "landmarks", "parsing", "identity")
    runs: list[dict[str, Any]] = found["runs"]
    rows = [
        [name, *(f"{run[f'{name}_ms']:.1f} ({run[f'{name}_ms_best']:.1f})" for run in runs)]
        for name in names
    ]
    rows.append(["all four", *(f"{run['together_ms']:.1f}" for run in runs)])
    rows.append(["all four, frames/s", *(f"{run['frames_per_second']:.0f}" for run in runs)])
    return Table(
        title="Speed, milliseconds a frame",
        head=["", *(f"threads: {run['threads']}" for run in runs)],
        rows=rows,
        notes=["Median of 30 calls by the wall clock; the best in brackets."],
    )


FACE_TABLES: Final = {
    "detection": _detection,
    "landmarks": _landmarks,
    "validation": _validation,
    "parsing": _parsing,
    "identity": _identity,
    "perceptual": _perceptual,
    "fooled": _fooled,
    "speed": _speed,
}
