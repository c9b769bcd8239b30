"""Processes that die, batches that are killed: the same bytes, nothing twice, nothing lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from sglat.batch.engine import LocalEngine
from sglat.batch.ray_engine import RayEngine
from sglat.batch.results import Results, results_path
from sglat.batch.run import run_batch
from sglat.bundles.bundle import Bundle
from tests.batch.works import copy_jobs, decode_jobs
from tests.bundles.tiny import make_tiny_bundle

# Importing torch takes longer than all of these jobs: a server that has done it forks processes.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])
TEXTS = {"a": "one", "b": "die", "c": "always", "d": "four", "e": "face"}
EXPECTED = {"a": "done", "b": "done", "c": "worker-lost", "d": "done", "e": "no-face"}


def outcomes(engine: LocalEngine | RayEngine, folder: Path) -> dict[str, str]:
    """Run copies with an engine; return what came of each."""
    found = engine.run(copy_jobs(folder, TEXTS))
    return {job.target.stem: facts["code"] or facts["status"] for job, facts in found}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_that_dies_is_replaced_and_its_file_tried_again(tmp_path: Path) -> None:
    engine = LocalEngine(workers=2, context=PROCESSES)
    assert outcomes(engine, tmp_path) == EXPECTED
    assert (tmp_path / "out/b.out").read_text() == "DIE"


def run_in_group(folder: Path, out: Path, bundle: Path) -> None:
    """Decode some files with two processes, all in a process group of their own."""
    os.setsid()
    jobs = decode_jobs(folder, out, Bundle(bundle))
    engine = LocalEngine(workers=2, context=multiprocessing.get_context("fork"))
    run_batch(jobs, Results(out, results_path(out, None)), engine)


def start(*arguments: Path) -> multiprocessing.context.ForkServerProcess:
    """Start a batch in its own group."""
    process = PROCESSES.Process(target=run_in_group, args=arguments)
    process.start()
    return process


def lines_in(path: Path) -> int:
    """Return how many lines a file has, 0 if there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_group(process: multiprocessing.context.ForkServerProcess) -> None:
    """Kill a batch and its processes at once; it leads a group of its own soon after its start."""
    leader = process.pid or 0
    with suppress(ProcessLookupError):  # it has just ended
        while os.getpgid(leader) != leader:
            time.sleep(0.01)
        os.killpg(leader, signal.SIGKILL)
    process.join()


@pytest.mark.slow
def test_a_batch_killed_three_times_ends_with_the_same_bytes(tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny").folder
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start(tmp_path, whole, tiny)
    process.join()
    assert process.exitcode == 0
    path, chance, statuses = cut / "results.jsonl", random.Random(0), []
    for made in (0, 1, 2):
        process = start(tmp_path, cut, tiny)
        while process.is_alive() and made > lines_in(path):
            time.sleep(0.01)
        time.sleep(0.1 * chance.random())
        kill_group(process)
        statuses.append(process.exitcode)
    assert -signal.SIGKILL in statuses
    process = start(tmp_path, cut, tiny)
    process.join()
    assert process.exitcode == 0
    names = [f"{number}.mp4" for number in range(4)]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert Counter(record["output"] for record in records) == Counter(names)
    assert sorted(p.name for p in cut.iterdir()) == [*names, "results.jsonl"]
    assert all((cut / name).read_bytes() == (whole / name).read_bytes() for name in names)


@pytest.mark.slow
def test_ray_gives_the_same_and_begins_again_where_a_worker_is_lost(tmp_path: Path) -> None:
    assert outcomes(RayEngine(workers=2), tmp_path) == EXPECTED
    assert (tmp_path / "out/b.out").read_text() == "DIE"
