"""Jobs as tasks of a Ray cluster, or of a Ray of its own on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sglat.batch.engine import ATTEMPTS, lost
from sglat.batch.work import Facts, Job, perform
from sglat.errors import MissingExtraError, UsageError


@dataclass(kw_only=True)
class RayEngine:
    """Tasks on Ray core; each worker process keeps one bundle in memory.

    The machines of a cluster need this package, and the inputs and the output folder under the same
    paths.
    """

    workers: int = 1
    """Tasks at a time without a cluster; a cluster takes as many as its processors allow."""
    threads: int = 1
    """Processors of a task."""
    address: str | None = None
    """Of a cluster; None starts one on this machine for the time of the run."""
    attempts: int = ATTEMPTS

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Facts]]:
        """Yield jobs with what came of them, as they end. Ray begins a task anew whose process or
        machine is lost.

        Raises:
            MissingExtraError: ray is not installed.
            UsageError: `ray-address`.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray: Any = import_module("ray")
        except ImportError as error:
            raise MissingExtraError("ray", extra="ray") from error
        self._connect(ray)
        try:
            task = ray.remote(num_cpus=self.threads, max_retries=self.attempts - 1)(perform)
            places = int(ray.cluster_resources().get("CPU", 1)) // self.threads
            yield from self._results(ray, task, list(jobs), max(1, places) + 1)
        finally:
            ray.shutdown()

    def _connect(self, ray: Any) -> None:
        own = {"num_cpus": self.workers * self.threads, "include_dashboard": False}
        try:
            ray.init(
                address=self.address or "local", log_to_driver=False,
                logging_level=logging.ERROR, **({} if self.address else own),
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            if self.address is None:
                raise
            reason = str(error).splitlines()[0]
            raise UsageError(
                "ray-address", f"no Ray cluster answers at {self.address}: {reason}"
            ) from error

    def _results(
        self, ray: Any, task: Any, jobs: list[Job], most: int
    ) -> Iterator[tuple[Job, Facts]]:
        """Hand out jobs, one more than run at a time, so that no worker waits."""
        waiting: dict[Any, Job] = {}
        left = iter(jobs)
        while True:
            while len(waiting) < most and (job := next(left, None)) is not None:
                waiting[task.remote(job)] = job
            if not waiting:
                return
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(ready)
            try:
                facts = ray.get(ready)
            except ray.exceptions.RayError as error:
                facts = lost(self.attempts, f"with {type(error).__name__}")
            yield job, facts
