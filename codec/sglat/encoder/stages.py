"""One function runs every stage of an encoding: key, stored work, progress and time.

A stage is a frozen config with a name and a `run` method. Its key is the hash of the whole config,
the version of its code, the keys of the results it reads and the ids of the networks it uses, so
stored work is continued only where all of these are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from sglat.bundles.bundle import Bundle
from sglat.decoder.synthesizer import Synthesizer
from sglat.encoder.workfile import Store, WorkFile, config_hash
from sglat.media.reader import Clip
from sglat.version import __version__

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called with a phase, units done and units in all (0 when unknown)."""


@dataclass(frozen=True, kw_only=True)
class Made(Generic[T]):
    """A result and its key."""

    value: T
    key: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a stage is given besides its inputs."""

    bundle: Bundle
    synthesizer: Synthesizer
    work: WorkFile
    name: str
    key: str
    tell: Callable[[int, int], None]
    """Called with units done and units in all (0 when unknown)."""

    def open(self, name: str | None = None) -> Store:
        """Open a store of the work file under the stage's key; by default the stage's own."""
        return self.work.open(name or self.name, self.key)


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[T]):
    """A step of encoding: a frozen config whose `run` turns inputs into a result."""

    name: ClassVar[str]
    phase: ClassVar[str] = ""
    """Name for progress and time, common to several stages; the stage's own if empty."""
    version: ClassVar[int] = 1
    """Raised with every change of the stage's code that changes results."""
    networks: ClassVar[tuple[str, ...]] = ()
    """Roles of the networks taken from the task (see `network_id`); inputs have theirs in their
    keys."""

    def roles(self) -> tuple[str, ...]:
        """Return the roles of the networks taken with these settings."""
        return self.networks

    def run(self, *args: Any, **kwargs: Any) -> T:
        """Return the result; called with a `Task` and the values of the inputs."""
        raise NotImplementedError


class Runner:
    """Runs the stages of one encoding, which keep their results in its work file."""

    def __init__(self, bundle: Bundle, work: WorkFile, progress: Progress | None = None) -> None:
        self.bundle, self.work, self.progress = bundle, work, progress
        self.synthesizer = Synthesizer.of(bundle)
        self.seconds: dict[str, float] = {}
        """Time by phase."""

    def video(self, source: Path | Clip) -> Made[Path | Clip]:
        """Return the input video, which the first stages read.

        Its key holds the release of the package, so that a new release continues nothing.
        """
        return Made(value=source, key=config_hash("video", self.work.source, __version__))

    def __call__(self, stage: Stage[T], *inputs: Made[Any]) -> Made[T]:
        """Run a stage, or read what it has stored under the same key."""
        phase = stage.phase or stage.name
        with self.clock(phase):
            key = stage_key(stage, self.bundle, inputs)
            task = Task(
                bundle=self.bundle, synthesizer=self.synthesizer, work=self.work,
                name=stage.name, key=key, tell=self.teller(phase),
            )  # fmt: skip
            return Made(value=stage.run(task, *(one.value for one in inputs)), key=key)

    def teller(self, phase: str) -> Callable[[int, int], None]:
        """Return the progress callback of a phase."""

        def tell(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(phase, done, total)

        return tell

    @contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        began = time.monotonic()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - began


def stage_key(stage: Stage[Any], bundle: Bundle, inputs: tuple[Made[Any], ...]) -> str:
    """Return the key of a stage's result."""
    networks = {role: network_id(bundle, role) for role in stage.roles()}
    keys = [one.key for one in inputs]
    return config_hash(type(stage).__name__, stage.version, stage, networks, keys)


def network_id(bundle: Bundle, role: str) -> str:
    """Return a text that changes with the weights and the choice of a network.

    Args:
        bundle: where it is taken from.
        role: `synthesizer` (generator, pose flow and controls), `faces`, `perceptual`, `landmarks`,
            or a part of the bundle.
    """
    if role == "synthesizer":
        return bundle.decoder_id.hex()
    if role in ("faces", "landmarks"):
        return bundle.faces_id
    if role == "perceptual":  # its package may be missing, then another network stands in
        return f"{type(bundle.perceptual).__name__} {bundle.faces_id}"
    return bundle.part(role).sha256 if bundle.has(role) else "none"
