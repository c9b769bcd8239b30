"""Two threads before the network: one takes frames, one turns the latest of them into motion."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import FRAME_HELD
from sglat.decoder.decode import prefetch
from sglat.errors import SglatError
from sglat.live.camera import Camera, CameraGoneError
from sglat.live.playout import eased

T = TypeVar("T")
REOPEN_SECONDS: Final = 2.0
GIVE_UP_SECONDS: Final = 60.0
"""A camera that stays away this long ends the call."""


class Follower(Protocol):
    """Follows one known person frame by frame."""

    def step(self, frame: NDArray[Any], time: float) -> NDArray[np.float32] | None:
        """Return the motion in a frame, `[34]`; None where the face is not seen.

        Args:
            frame: uint8 RGB `[H, W, 3]`.
            time: of the frame in seconds, rising.
        """


@runtime_checkable
class StagedFollower(Protocol):
    """A follower in two halves that may run side by side, each in the order of the frames."""

    def prepare(self, frame: NDArray[Any], time: float) -> Any:
        """Return what `solve` needs of a frame; arguments as `Follower.step`."""

    def solve(
        self, prepared: Iterable[tuple[T, Any]]
    ) -> Iterator[tuple[T, NDArray[np.float32] | None]]:
        """Yield the motion of each frame, `[34]`, with what came with it; None where the face is
        not seen. A frame may wait for later ones."""


class StoredMotion:
    """The follower of a source that is motion already."""

    def step(self, frame: NDArray[Any], time: float) -> NDArray[np.float32] | None:
        """Return the motion as it is."""
        return frame.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One frame on its way to the network."""

    motion: NDArray[np.float32]
    """`[34]`."""
    flags: int
    captured: float
    """Monotonic time of the frame."""
    solved: float
    """Monotonic time when its motion was known."""
    solve_seconds: float


@dataclass
class Capture:
    """Runs camera and follower; calls back from its threads.

    Args:
        camera: read by one thread.
        follower: called by another, with the latest frame: older ones that wait are dropped.
        neutral: what a face that stays away is eased to, `[34]`.
        on_frame: called for each frame.
        on_state: called with one line when the camera is gone or back.
        on_end: called once: None at the end of a file, or the error.
    """

    camera: Camera
    follower: Follower | StagedFollower
    neutral: NDArray[np.float32]
    on_frame: Callable[[Taken], None]
    on_state: Callable[[str], None]
    on_end: Callable[[BaseException | None], None]
    dropped: int = 0
    """Frames that the follower was too slow for."""
    lost: int = 0
    """Frames without the face."""
    _latest: tuple[NDArray[Any], float] | None = None
    _is_over: bool = False
    _error: BaseException | None = None
    _ready: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start both threads."""
        for work in (self._take, self._follow):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop both threads."""
        self.camera.close()
        with self._ready:
            self._is_over = True
            self._ready.notify()
        for thread in self._threads:
            thread.join(2.0)

    def _take(self) -> None:
        gone_since: float | None = None
        try:
            while not self._is_over:
                try:
                    for picture, captured in self.camera.frames():
                        if gone_since is not None:
                            self.on_state("the camera is back")
                            gone_since = None
                        self._put(picture, captured)
                        if self._is_over:
                            return
                    return
                except SglatError as error:
                    is_first = gone_since is None
                    if not self.camera.is_live or (is_first and not _is_gone(error)):
                        raise
                    now = time.monotonic()
                    gone_since = now if gone_since is None else gone_since
                    if is_first:
                        self.on_state(f"{error}; the other end sees a still face until it is back")
                    if now - gone_since > GIVE_UP_SECONDS:
                        raise
                    self._pause()
        except BaseException as error:
            self._error = error
        finally:
            with self._ready:
                self._is_over = True
                self._ready.notify()

    def _pause(self) -> None:
        until = time.monotonic() + REOPEN_SECONDS
        while not self._is_over and time.monotonic() < until:
            time.sleep(0.05)

    def _put(self, picture: NDArray[Any], captured: float) -> None:
        with self._ready:
            if self._latest is not None:
                self.dropped += 1
            self._latest = picture, captured
            self._ready.notify()

    def _follow(self) -> None:
        shown, missing, last = self.neutral, 0, None
        try:
            for motion, captured, begun in self._motions():
                solved = time.monotonic()
                flags = 0
                if motion is None:
                    self.lost += 1
                    missing += 1
                    period = 0.04 if last is None else captured - last
                    shown, flags = eased(shown, self.neutral, missing, period), FRAME_HELD
                else:
                    shown, missing = motion, 0
                last = captured
                self.on_frame(
                    Taken(
                        motion=shown, flags=flags, captured=captured, solved=solved,
                        solve_seconds=solved - begun,
                    )
                )  # fmt: skip
        except BaseException as error:
            self._error = self._error or error
            self._is_over = True
            self.camera.close()
        self.on_end(self._error)

    def _motions(self) -> Iterator[tuple[NDArray[np.float32] | None, float, float]]:
        """Yield motion, time of the frame, and when work on it began."""
        follower = self.follower
        if isinstance(follower, StagedFollower):
            for (captured, begun), motion in follower.solve(prefetch(self._prepared(follower), 1)):
                yield motion, captured, begun
            return
        while (item := self._next()) is not None:
            begun = time.monotonic()
            yield follower.step(*item), item[1], begun

    def _prepared(self, follower: StagedFollower) -> Iterator[tuple[tuple[float, float], Any]]:
        while (item := self._next()) is not None:
            begun = time.monotonic()
            yield (item[1], begun), follower.prepare(*item)

    def _next(self) -> tuple[NDArray[Any], float] | None:
        with self._ready:
            while self._latest is None and not self._is_over:
                self._ready.wait()
            item, self._latest = self._latest, None
            return item


def _is_gone(error: SglatError) -> bool:
    return isinstance(error, CameraGoneError)
