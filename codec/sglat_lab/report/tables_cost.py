"""Tables of cost and robustness, and the order of all tables in a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sglat_lab.report.document import Table, cells, number
from sglat_lab.report.tables_quality import (
    at_our_rate,
    bd_rates,
    cached,
    duels,
    frechet,
    main_metrics,
    mean,
    per_clip,
    verdict,
)

Record = dict[str, Any]


def rates(record: Record) -> Table:
    """Return bytes by stream and kbit/s of every clip."""
    rows = []
    for clip in record["clips"]:
        found = clip["rates"]
        sizes, speed = found["bytes_by_stream"], found["kbit_per_second"]
        shift = found["audio_shift_milliseconds"]
        rows.append(
            [clip["clip"], f"{found['seconds']:.1f}", str(found["file_bytes"])]
            + [str(sizes[k]) for k in ("identity", "motion", "placement", "audio")]
            + [str(sizes["header"] + sizes["container"])]
            + [number(found["motion_bits_per_frame"], 1)]
            + [
                number(speed[k], 2)
                for k in (
                    "motion", "cached_identity", "first_view", "first_view_10s", "first_view_60s",
                    "first_view_600s",
                )
            ]
            + [number(shift, 1)]
        )  # fmt: skip
    return Table(
        title="What our files cost",
        head=["clip", "s", "bytes", "identity", "motion", "placement", "sound", "header, container",
              "motion bits a frame", "kbit/s motion", "cached identity", "first view", "10 s",
              "60 s", "10 min", "A/V shift (ms)"],
        rows=rows,
        notes=[
            "Cached identity: motion, placement and index. First view: all but sound, over the "
            "clip as long as it is; 10 s, 60 s and 10 min are extrapolated, the identity counting "
            "once. A/V shift: sound against picture, first time stamps, compared with the source.",
        ],
    )  # fmt: skip


def motion_coders(record: Record) -> Table:
    """Return other coders' bits for the same integers."""
    rows = []
    names = list(record["clips"][0]["rates"]["other_coders_bits_per_frame"])
    for clip in record["clips"]:
        others = clip["rates"]["other_coders_bits_per_frame"]
        ours = clip["rates"]["motion_bits_per_frame"]
        rows.append([clip["clip"], number(ours, 1), *(number(others[n], 1) for n in names)])
    return Table(
        title="Motion: the same integers through other coders, bits a frame",
        head=["clip", "ours", *names],
        rows=rows,
        notes=["Ours counts motion groups with their heads, not the motion model in the header."],
    )


def swaps(record: Record) -> Table:
    """Return cross-identity figures against playing the driver's video."""
    keys = ("identity_loss", "identity_loss_of_driver", "identity_loss_of_puppet")
    signs = ("rho_au_proxy", "rho_gaze_proxy", "rho_pose")
    rows = [
        [found["driver"], found["puppet"], *(number(found.get(key), 3) for key in keys)]
        + [f"{number(found.get(key), 3)} ({number(found.get('own_' + key), 3)})" for key in signs]
        for found in record["swap"]
    ]
    if len(rows) > 1:
        rows.append(["mean", "", *(_mean_of(record["swap"], key) for key in keys)]
                    + [f"{_mean_of(record['swap'], key)} ({_mean_of(record['swap'], 'own_' + key)})"
                       for key in signs])  # fmt: skip
    return Table(
        title="Swapped: one clip's motion with another clip's identity",
        head=["driver", "puppet", "L_ID to the puppet: swapped", "driver's video played",
              "puppet's video played", "ρ_AU proxy", "ρ_GZ proxy", "ρ_pose"],
        rows=rows,
        notes=[
            "L_ID against the mean identity vector of the puppet's source frames; the puppet's own "
            "video is the best that can be had. Correlations are those of the swapped video to the "
            "driver's source, in brackets those of the driver's own file to it. Simply playing the "
            "driver's video has correlations of 1 and the L_ID of the fourth column: a swap must "
            "come far below that L_ID and keep the correlations. –: the driver hardly moves.",
        ],
    )  # fmt: skip


def _mean_of(found: list[Record], key: str) -> str:
    values = [one[key] for one in found if isinstance(one.get(key), float)]
    return number(mean(values), 3) if values else "–"


def loss(record: Record) -> Table:
    """Return quality against the share of groups lost, mean over clips and seeds."""
    shares: dict[float, list[Record]] = {}
    for clip in record["clips"]:
        for found in clip["loss"]:
            shares.setdefault(found["share"], []).append(found)
    metrics = main_metrics(record)
    rows = []
    for share, found in sorted(shares.items()):
        rows.append(
            [f"{share:.0%}", f"{mean([f['share_lost'] for f in found]):.1%}"]
            + [number(mean([f["error_steps"] for f in found]), 2)]
            + [number(mean([f[m.key] for f in found]), m.digits) for m in metrics]
        )
    cost = mean([c["kbit_per_second_short_groups"] for c in record["clips"]])
    return Table(
        title="Motion groups lost and interpolated",
        head=["chance of loss", "frames lost", "error of lost numbers (steps)",
              *(m.label for m in metrics)],
        rows=rows,
        notes=[
            "Groups of 12 frames are lost independently, all but the first; lost frames are "
            "straight lines between what arrived. Simulated on the motion, not on a network. "
            f"Such short groups cost {cost:.2f} kbit/s of motion and placement.",
        ],
    )  # fmt: skip


def damage(record: Record) -> Table:
    """Return what the reader said of damaged files."""
    rows = []
    for kind in ("bit flips", "truncations"):
        found = [clip["damage"][kind] for clip in record["clips"]]
        codes = sorted({code for f in found for code in f["codes"]})
        counts = [
            str(sum(f[key] for f in found)) for key in ("tried", "refused", "unnoticed", "crashed")
        ]
        rows.append([kind, *counts, ", ".join(codes)])
    return Table(
        title="Damaged files",
        head=["damage", "tried", "refused", "unnoticed", "crashed", "codes"],
        rows=rows,
    )


def encode_speed(record: Record) -> Table:
    """Return encoding seconds a frame by stage, where they are known."""
    found = [(c["clip"], c["encode"]) for c in record["clips"] if c["encode"]]
    stages = list(dict.fromkeys(s for _, e in found for s in e["stage_seconds"]))
    rows = [
        [name, str(e["frames"]), number(e["seconds_per_frame"], 3)]
        + [number(e["stage_seconds"].get(s, 0.0) / e["frames"], 3) for s in stages]
        + [number(e.get("peak_memory_megabytes"), 0)]
        for name, e in found
    ]
    together = record["about"]["workers"]
    return Table(
        title="Encoding: seconds a frame by stage",
        head=["clip", "frames", "all", *stages, "peak memory (MB)"],
        rows=rows,
        notes=[
            f"Wall clock of one process with one thread, {together} of them side by side on the "
            f"machine named above: it finishes {together} clips in this time. Tuning and Jacobians "
            "cost the same for any length, so that a frame of a longer clip costs less."
        ],
    )


def decode_speed(record: Record) -> Table:
    """Return decoding speed on each device."""
    rows = []
    for found in record["speed"].get("decoding", []):
        start = found["load_seconds"] + found["first_frame_seconds"]
        figures = (
            number(found["import_seconds"]), number(start),
            number(found["frames_per_second"], 1), number(found["peak_memory_megabytes"], 0),
            number(found["reference_ratio"]),
        )  # fmt: skip
        rows.append(
            [found["clip"], found["device"], str(found["threads"]), str(found["frames"]), *figures]
        )
    return Table(
        title="Decoding in a fresh process",
        head=["clip", "device", "threads", "frames", "import (s)", "weights to first batch (s)",
              "frames a second", "peak memory (MB)",
              "rendering against the plain generator (times)"],
        rows=rows,
        notes=["The decoder's renderer and the plain generator take turns in one process."],
    )  # fmt: skip


def memory(record: Record) -> Table:
    """Return peak memory against the length of the clip."""
    rows = [
        ["encode", one["clip"], str(one["frames"]), number(one["peak_memory_megabytes"], 0)]
        for one in record["speed"].get("encode_memory", [])
    ] + [
        ["decode", "", str(one["frames"]), number(one["peak_memory_megabytes"], 0)]
        for one in record["speed"].get("decode_memory", [])
    ]
    return Table(
        title="Peak memory against the length of the clip",
        head=["", "clip", "frames", "peak memory (MB)"],
        rows=rows,
        notes=[
            "Resident memory of a fresh process, PyTorch and weights included. Short encodings are "
            "tuned in few steps, which changes the time but not the memory. Decoded files play one "
            "clip's motion over and over."
        ],
    )


def solvers(record: Record) -> Table:
    """Return what the two solvers reach and spend."""
    found = record["solvers"]
    if isinstance(found, str):
        return Table(
            title="The method's solver against the fast one", head=["solvers"], rows=[[found]]
        )
    rows = []
    for name, key in (("fast", "fast"), ("paper (the method's own)", "paper")):
        last = found[key][-1]
        rows.append(
            [name, number(last["passes"], 0), number(last["seconds"], 2),
             number(last["psnr"], 2), number(last.get("perceptual"), 4)]
        )  # fmt: skip
    start = found["start"]
    rows.insert(0, ["start of both", "0", "0", number(start["psnr"], 2),
                    number(start.get("perceptual"), 4)])  # fmt: skip
    share = "" if found["epochs"] == found["epochs_of_method"] else (
        f" Cut short: {found['epochs']} of the method's {found['epochs_of_method']} epochs."
    )  # fmt: skip
    return Table(
        title="The method's solver against the fast one",
        head=["solver", "generator passes a frame", "s a frame", "PSNR, crop (dB)",
              "perceptual, crop"],
        rows=rows,
        notes=[
            f"{found['frames']} frames of {found['clip']} from frame {found['first_frame']} on; "
            "same tuned person, same start after the pose stage, numbers not quantized. A pass is "
            "one picture through the generator: forwards, backwards, or forward-mode by one "
            f"number. Jacobians are shared by the clip's {found['clip_frames']} frames; longer "
            "clips share them further. The networks that only the method's solver minimises "
            "(parsing, identity, perceptual) are not counted as passes, but in the seconds."
            + share,
        ],
    )  # fmt: skip


def not_measured(record: Record) -> Table:
    """Return what is missing and why."""
    rows = [[name, f"not measured: needs {what}"] for name, what in record["not_measured"].items()]
    rows += [[name, reason] for name, reason in record["skipped"].items()]
    return Table(title="Not measured", head=["what", "why"], rows=rows)


TABLES: Final[dict[str, tuple[Callable[[Record], Table], ...]]] = {
    "quality": (verdict, at_our_rate, duels, cached, bd_rates, per_clip),
    "rates": (rates, motion_coders),
    "swap": (swaps,),
    "loss": (loss,),
    "damage": (damage,),
    "encode": (encode_speed,),
    "speed": (decode_speed, memory),
    "solvers": (solvers,),
    "frechet": (frechet,),
    "missing": (not_measured,),
}
"""Tables by probe, in the report's order; `encode` and `missing` need none."""


def tables(record: Record) -> list[Table]:
    """Return all tables of the probes that were run and that have rows."""
    chosen = {*record["about"]["probes"], "encode", "missing"}
    found = [table(record) for name, made in TABLES.items() if name in chosen for table in made]
    return [table for table in found if table.rows]


def long_decodes(runs: Sequence[Record]) -> Table:
    """Return memory and speed of decoding against length."""
    columns = (("frames", 0), ("peak_memory_megabytes", 0),
               ("frames_per_second", 1), ("frames_per_second_with_start", 1),
               ("processor_ms_per_frame", 1), ("threads", 0), ("load", 1))  # fmt: skip
    return Table(
        title="Decoding in a fresh process against length",
        head=["minutes", "frames", "peak memory MB", "frames/s", "frames/s with start",
              "processor ms a frame", "threads", "load"],
        rows=[[f"{run['minutes']:g}", *cells(run, columns)] for run in runs],
        notes=["One file repeated to each length; frames/s counts from the second batch on."],
    )  # fmt: skip
