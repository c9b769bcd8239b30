"""Many files: killed batches against undisturbed ones, Ray against processes, two jobs against one.

    python -m sglat_lab.bench.batch FILES CLIPS ME.sglat OUT

decodes the .sglat files of FILES and encodes the clips of CLIPS, of the person of ME.sglat, by
`sgl-batch` with two jobs of one thread. Both are killed at five random moments, in turn the whole
process group and one worker, and begun again. Results are kept in OUT, so an interrupted run
continues; a part is measured anew once its file in OUT is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from sglat.batch.engine import Engine, LocalEngine
from sglat.batch.inputs import VIDEO_SUFFIXES, read_inputs
from sglat.batch.plan import make_jobs
from sglat.batch.ray_engine import RayEngine
from sglat.batch.work import DecodeWork, EncodeWork, Job, Work, perform
from sglat.decoder.decode import DecodeConfig
from sglat.decoder.output import OutputConfig
from sglat.encoder.config import EncodeConfig
from sglat_lab.bench.harness import Cache
from sglat_lab.report.pages import provenance, write_page

PARTS: Final = ("decode", "engines", "parallel", "encode")
KILLS: Final = 5
ENGINE_FILES: Final = 20  # decoded by each engine in each round
PARALLEL_FILES: Final = 5  # encoded in each way in each round
JOBS: Final = 2
Figures = dict[str, Any]


def command(work: str, source: Path, out: Path, me: Path) -> list[str]:
    """Return a batch command with two jobs of one thread."""
    options = ["--out-dir", str(out), "--jobs", str(JOBS), "--threads", "1", "--quiet"]
    if work == "encode":
        options += ["--identity", str(me), "--preset", "live", "--no-sign"]
    else:
        options += ["--encoder", "libx264", "--no-sign", "--size", "128"]
    return [sys.executable, "-m", "sglat.cli.batch", work, str(source), *options]


def records(out: Path) -> list[dict[str, Any]]:
    """Return the lines of a folder's results."""
    path = out / "results.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def children(process: int) -> list[int]:
    """Return the worker processes of a batch; the one that tracks resources is none."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    return [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def kill_once(process: subprocess.Popen[bytes], chance: random.Random, *, is_whole: bool) -> str:
    """Kill a batch, or one of its workers; return what was killed."""
    if is_whole:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "process group"
    workers = children(process.pid)
    if not workers:
        return "none"
    os.kill(chance.choice(workers), signal.SIGKILL)
    return "worker"


def killed(work: str, source: Path, me: Path, out: Path) -> Figures:
    """Run a batch undisturbed and one killed at random moments; return whether they agree."""
    whole, cut = out / f"{work}-whole", out / f"{work}-killed"
    for folder in (whole, cut):
        shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    subprocess.run(command(work, source, whole, me), check=True)
    seconds = time.monotonic() - began
    chance, kills = random.Random(0), []
    count = len(records(whole))
    moments = sorted(chance.randrange(count) for _ in range(KILLS))
    process: subprocess.Popen[bytes] | None = None
    began = time.monotonic()
    for number, moment in enumerate(moments):
        if process is None or process.poll() is not None:
            process = subprocess.Popen(command(work, source, cut, me), start_new_session=True)
        while process.poll() is None and (len(records(cut)) < moment or not children(process.pid)):
            time.sleep(0.05)
        time.sleep(chance.random() * seconds / count)
        found = kill_once(process, chance, is_whole=number % 2 == 0)
        kills.append({"killed": found, "files_done": len(records(cut))})
    if process is None or process.poll() is not None:
        process = subprocess.Popen(command(work, source, cut, me), start_new_session=True)
    status = process.wait()
    return {
        "files": count, "kills": kills, "status": status, **compared(whole, cut),
        "seconds_undisturbed": round(seconds, 1),
        "seconds_killed": round(time.monotonic() - began, 1),
    }  # fmt: skip


def compared(whole: Path, cut: Path) -> Figures:
    """Return how the outputs and lines of two batches differ."""
    lines = Counter(record["output"] for record in records(cut) if record["status"] == "done")
    wanted = {path.name for path in whole.iterdir()} - {"results.jsonl"}
    found = {path.name for path in cut.iterdir()} - {"results.jsonl"}
    same = [n for n in wanted & found if (whole / n).read_bytes() == (cut / n).read_bytes()]
    return {
        "same_bytes": len(same),
        "lost": len(wanted - found),
        "left_over": len(found - wanted),
        "lines_twice": sum(count - 1 for count in lines.values()),
        "lines_missing": len(wanted - lines.keys()),
        "failed_lines": sum(record["status"] == "failed" for record in records(cut)),
    }


def decode_work() -> DecodeWork:
    """Return decoding with one thread."""
    output = OutputConfig(path=Path("any.mp4"), encoder="libx264", threads=1)
    return DecodeWork(config=DecodeConfig(size=128), output=output, threads=1)


def jobs_of(work: Work, source: Path, out: Path) -> list[Job]:
    """Return the jobs of a folder, the outputs of an earlier run removed."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    suffixes = VIDEO_SUFFIXES if work.command == "encode" else frozenset({".sglat"})
    return make_jobs(read_inputs(str(source), suffixes, skipped=out), out, work)[0]


def after_start(engine: Engine, jobs: Sequence[Job], workers: int) -> Figures:
    """Run jobs; return the time of a file from the moment when each worker has ended one."""
    moments = []
    for job, facts in engine.run(jobs):
        if facts["status"] != "done":
            raise RuntimeError(f"{job.source}: {facts['message']}")
        moments.append(time.monotonic())
    rest = moments[workers - 1 :]
    return {"seconds_a_file": (rest[-1] - rest[0]) / (len(rest) - 1), "load": os.getloadavg()[0]}


def engines(source: Path, out: Path, rounds: int) -> Figures:
    """Decode by Ray and by processes in turn; return times and whether outputs are the same."""
    rows: dict[str, list[Figures]] = {"local": [], "ray": []}
    for _ in range(rounds):
        local: Engine = LocalEngine(workers=JOBS)
        for name, engine in (("local", local), ("ray", RayEngine(workers=JOBS))):
            jobs = jobs_of(decode_work(), source, out / f"engine-{name}")[:ENGINE_FILES]
            rows[name].append(after_start(engine, jobs, JOBS))
    names = sorted(path.name for path in (out / "engine-local").glob("*.mp4"))
    folders = [out / f"engine-{name}" for name in rows]
    same = [n for n in names if len({(folder / n).read_bytes() for folder in folders}) == 1]
    seconds = {name: sum(row["seconds_a_file"] for row in found) for name, found in rows.items()}
    return {
        "files": len(names), "same_bytes": len(same), "rounds": rows,
        "ratio": round(seconds["ray"] / seconds["local"], 3),
    }  # fmt: skip


def encode_plainly(jobs: Sequence[Job], ends: Any) -> None:
    """Encode some files in this process, with nothing of the batch around them."""
    for job in jobs:
        perform(job)
        ends.put(time.monotonic())


def by_hand(jobs: Sequence[Job], processes: int) -> Figures:
    """Encode with plain processes, each its share; return the time of a file after the first."""
    context = get_context("spawn")
    ends = context.Queue()
    shares = [jobs[number::processes] for number in range(processes)]
    pool = [context.Process(target=encode_plainly, args=(share, ends)) for share in shares]
    for process in pool:
        process.start()
    moments = sorted(ends.get() for _ in jobs)
    for process in pool:
        process.join()
    rest = moments[processes - 1 :]
    return {"seconds_a_file": (rest[-1] - rest[0]) / (len(rest) - 1), "load": os.getloadavg()[0]}


def parallel(source: Path, me: Path, out: Path, rounds: int) -> Figures:
    """Encode with one job and with two, by the batch and by plain processes, in turn."""
    work = EncodeWork(config=EncodeConfig(identity=me, preset="live", threads=1))
    rows: dict[str, list[Figures]] = {}
    for _ in range(rounds):
        for count in (1, 2):
            jobs = jobs_of(work, source, out / "parallel")[:PARALLEL_FILES]
            engine = LocalEngine(workers=count)
            rows.setdefault(f"batch {count}", []).append(after_start(engine, jobs, count))
            jobs = jobs_of(work, source, out / "parallel")[:PARALLEL_FILES]
            rows.setdefault(f"plain {count}", []).append(by_hand(jobs, count))
    total = {name: sum(row["seconds_a_file"] for row in found) for name, found in rows.items()}
    return {
        "rounds": rows,
        "speedup_batch": round(total["batch 1"] / total["batch 2"], 3),
        "speedup_plain": round(total["plain 1"] / total["plain 2"], 3),
    }


def with_run(make: Callable[[], Figures], run: Figures) -> Figures:
    """Measure a part, and keep with it where and with what."""
    return make() | {"run": run}


def main() -> None:
    """Measure all parts and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, help="folder of .sglat files")
    parser.add_argument("clips", type=Path, help="folder of clips")
    parser.add_argument("me", type=Path, help="identity of the person in the clips")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kept = Cache(args.out)
    parts: dict[str, Callable[[], Figures]] = {
        "decode": partial(killed, "decode", args.files, args.me, args.out),
        "engines": partial(engines, args.files, args.out, args.rounds),
        "parallel": partial(parallel, args.clips, args.me, args.out, args.rounds),
        "encode": partial(killed, "encode", args.clips, args.me, args.out),
    }
    record: Figures = {"runs": []}
    for name in args.parts:
        run = provenance("python -m sglat_lab.bench.batch", what=name)
        found = kept.record(f"batch-{name}", partial(with_run, parts[name], run))
        record["runs"].append(found.pop("run"))
        record[name] = found
        print(name, json.dumps(found), flush=True)
    print(write_page(args.out / "batch.json", record))


if __name__ == "__main__":
    main()
