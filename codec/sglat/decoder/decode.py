"""The decoding pipeline: file → motion → styles → pictures, streamed in batches."""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.reader import (
    Group,
    Reader,
    check_identity_file,
    identity_beside,
    open_reader,
)
from sglat.bitstream.records import FRAME_HELD, AudioPacket, Header, Identity
from sglat.bundles.bundle import Bundle, bundle_for
from sglat.decoder.backdrop import Backdrop
from sglat.decoder.composite import CompositeConfig, Compositor, Parse
from sglat.decoder.paint import FaceTrack, Painter
from sglat.decoder.synthesizer import Renderer, Synthesizer, Transfer, held_rungs, retarget
from sglat.errors import BundleError, UsageError
from sglat.files import naming
from sglat.media.reader import exact_seconds
from sglat.networks.devices import choose_device, renders_in_half
from sglat.networks.pixels import resize, to_pixels

T = TypeVar("T")
QUEUE_BATCHES: Final = 2  # rendered ahead of the writer; bounds memory


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """How a file is decoded; none of these changes the meaning of its bytes."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `mps`."""
    batch: int = 8
    """Frames rendered together."""
    layers: int | None = None
    """Identity layers to use; None: all."""
    transfer: Transfer = "relative"
    """How a swapped file's motion is carried over to the other person."""
    size: int | None = None
    """Side of the pictures in pixels; None: the file's full resolution. The generator renders the
    smallest rung that is large enough."""
    start_seconds: float = 0.0
    """The first frame at or after it is decoded."""
    end_seconds: float | None = None
    """The last frame before it is decoded; None: to the end."""
    half: bool | None = None
    """16-bit features in the generator; None: on CUDA, and on processors that are faster in
    bfloat16. Without, pictures of different processors agree but for single levels."""
    workers: int = 0
    """Frames rendered side by side on a processor; 0: one for each PyTorch thread."""


@dataclass(frozen=True, kw_only=True)
class DecodedFrame:
    """One frame as shown."""

    index: int
    """Number in the file."""
    pts: int
    """In ticks of the file's time base."""
    picture: NDArray[np.uint8]
    """`[H, W, 3]` RGB: the aligned crop, or the full frame with a backdrop."""
    is_held: bool
    """The source had no face here; the frame repeats an earlier one."""
    generated: NDArray[np.float32] | None = None
    """Share of the generated crop in each pixel of a full frame, `[H, W]`; None: all of it."""


class Decoder:
    """Decodes one open file.

    Args:
        file: open for reading in binary mode; a pipe will do.
        bundle: loaded weights; None loads the bundle that the file names.
        config: device, batch and range.
        identity_file: file that holds the identity if this one only refers to it; None looks
            for the name of the reference beside the file.

    Raises:
        FormatError: the bytes break the specification.
        BundleMismatchError: the file was made for other weights.
        UsageError: the identity is in another file that was not found; an empty range.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        bundle: Bundle | None = None,
        config: DecodeConfig | None = None,
        identity_file: Path | None = None,
    ) -> None:
        self.config = config or DecodeConfig()
        self.reader = Reader(file, max_layers=self.config.layers)
        self.header: Header = self.reader.header
        device = bundle.device if bundle else choose_device(self.config.device)
        with naming(file):
            self.bundle = bundle.of_file(self.header) if bundle else bundle_for(self.header, device)
        self.identity = self._find_identity(file, identity_file)
        self.rungs = held_rungs(self.bundle, self.identity)
        """Resolutions that the file's identity can be rendered at, ascending."""
        if (self.config.layers or 0) > (found := len(self.identity.layers)):
            raise UsageError(
                "bad-layers", f"expected at most {found} layers, got {self.config.layers}"
            )
        self._range = self._tick_range()
        self._workers = self.config.workers or torch.get_num_threads()
        self._groups = self.reader.groups()
        self._synthesizer: Synthesizer | None = None
        self._renderers: dict[int, Renderer] = {}
        self._audio: deque[AudioPacket] = deque()

    @property
    def side(self) -> int:
        """Side of the aligned pictures in pixels."""
        return self.config.size or self.rungs[-1]

    @property
    def notes(self) -> list[str]:
        """What limits the resolution, one line each."""
        notes, best = [], self.rungs[-1]
        if best < self.header.resolution:
            notes.append(
                f"the identity lacks its layers for {self.header.resolution} px: shown at {best} px"
            )
        if self.side > best:
            notes.append(f"pictures of {best} px are enlarged to {self.side} px")
        return notes

    @property
    def frame_rate(self) -> Fraction | None:
        """Frames per second where constant."""
        ticks = self.header.frame_ticks
        return None if ticks is None else 1 / (ticks * self.header.time_base)

    def take_audio(self) -> list[AudioPacket]:
        """Return the audio packets that were read since the last call; safe from another thread."""
        taken = []
        while self._audio:
            taken.append(self._audio.popleft())
        return taken

    def frames(
        self,
        backdrop: Backdrop | None = None,
        *,
        track: FaceTrack | None = None,
        composite: CompositeConfig | None = None,
    ) -> Iterator[DecodedFrame]:
        """Yield the frames in order, rendering in batches.

        Args:
            backdrop: full frames to paste the face into; None yields the aligned pictures.
            track: where the face lies in these; None: where the file has it.
            composite: mask and seam.

        Raises:
            FormatError: damage further on in the file.
            UsageError: a backdrop was given, and the file has no placement.
        """
        painter = None
        if backdrop is not None:
            if track is None and self.header.placement_steps is None:
                raise UsageError(
                    "no-placement", "the file has no placement of the face; use --track FILE.sglat"
                )
            compositor = Compositor(self.parse_for(backdrop), composite)
            painter = Painter(backdrop, compositor, track, source_size=self.header.source_size)
        shown: list[tuple[NDArray[np.uint8], NDArray[np.float32] | None]]
        for rows in self.batches():
            with torch.inference_mode():
                side = self.side if painter is None else painter.side(rows.placement)
                pictures = self.render(rows.motion, side)
                if painter is not None:
                    seconds = [int(pts) * self.header.time_base for pts in rows.pts]
                    pasted = painter.paint(pictures, seconds, rows.placement, rows.flags)
                    shown = [(each.picture, each.generated) for each in pasted]
                else:
                    shown = [(picture, None) for picture in to_pixels(resize(pictures, self.side))]
            for at, (picture, generated) in enumerate(shown):
                yield DecodedFrame(
                    index=rows.index + at,
                    pts=int(rows.pts[at]),
                    picture=picture,
                    is_held=bool(rows.flags[at] & FRAME_HELD),
                    generated=generated,
                )

    def _find_identity(self, file: BinaryIO, identity_file: Path | None) -> Identity:
        if self.reader.identity is not None:
            return self.reader.identity
        reference = self.reader.identity_reference
        assert reference is not None  # a file has the one or the other
        identity_file = identity_file or identity_beside(file, reference)
        if identity_file is None:
            name = f"{reference.hint} " if reference.hint else ""
            raise UsageError(
                "no-identity",
                f"the identity lies in another file: {name}with hash "
                f"{reference.sha256.hex()[:16]}; "
                "put it beside this file or name it by --identity-file (sgl-swap --attach and "
                "sgl-encode --embed make files that carry it)",
            )
        with open_reader(identity_file, max_layers=self.config.layers) as other:
            if other.identity is None or other.identity_sha256 is None:
                raise UsageError("no-identity", f"expected an identity in {identity_file}")
            with naming(identity_file):
                check_identity_file(self.reader, other.identity_sha256)
            return other.identity

    def _tick_range(self) -> tuple[int, int | None]:
        config = self.config
        start = self._ticks(config.start_seconds) if config.start_seconds > 0 else None
        end = None if config.end_seconds is None else self._ticks(config.end_seconds)
        if end is not None and end <= (start or 0):
            raise UsageError(
                "empty-range",
                f"expected an end after {config.start_seconds} s, got {config.end_seconds} s",
            )
        return (-(1 << 62) if start is None else start), end

    def _ticks(self, seconds: float) -> int:
        """Return the first tick at or after a time, taken as the decimal number that was typed."""
        return math.ceil(exact_seconds(seconds) / self.header.time_base)

    def render(self, motion: NDArray[np.float32], side: float) -> Tensor:
        """Return pictures at the smallest rung with `side` pixels, or the largest."""
        renderer = self._renderer(next((r for r in self.rungs if r >= side), self.rungs[-1]))
        person = renderer.person
        driver = self.reader.motion_neutral
        wanted = retarget(
            torch.from_numpy(motion).to(person.ws),
            puppet=person.neutral,
            driver=None if driver is None else torch.from_numpy(driver.copy()).to(person.ws),
            transfer=self.config.transfer,
        )
        return renderer.render(wanted)

    def _renderer(self, rung: int) -> Renderer:
        if self._synthesizer is None:
            whole = Synthesizer.of(self.bundle)
            self._synthesizer = whole.tuned(self.identity.weight_deltas())
        if rung not in self._renderers:
            half = self.config.half
            self._renderers[rung] = Renderer(
                self._synthesizer.up_to(rung),
                self._synthesizer.person(self.identity),
                half=renders_in_half(self.bundle.device) if half is None else half,
                workers=self._workers,
            )
        return self._renderers[rung]

    def parse_for(self, backdrop: Backdrop) -> Parse | None:
        """Return what parses the crops that are pasted into a backdrop; None pastes them whole."""
        if not backdrop.has_face:
            return None
        try:
            return self.bundle.faces.parse
        except BundleError:  # a bundle without face networks pastes the whole crop
            return None

    def batches(self) -> Iterator[Rows]:
        """Yield wanted frames, at most `batch` at a time, never across motion groups."""
        start, end = self._range
        if self.config.start_seconds > 0:
            self.reader.skip_to(start)
        for group in self._groups:
            self._audio.extend(group.packets)
            rows = _rows_of(group, self.header)
            first = int(np.searchsorted(rows.pts, start))
            last = len(rows.pts) if end is None else int(np.searchsorted(rows.pts, end))
            for at in range(first, last, self.config.batch):
                yield rows.cut(at, min(at + self.config.batch, last))
            if last < len(rows.pts):
                break
        self._read_audio_until(end)

    def _read_audio_until(self, end: int | None) -> None:
        """Read on for the sound that belongs to frames already shown."""
        sound = self.reader.audio_format
        if sound is None and end is not None:
            return
        for group in self._groups:
            self._audio.extend(group.packets)
            if sound is None or end is None or not group.packets:
                continue
            if group.packets[-1].dts * sound.time_base >= end * self.header.time_base:
                return
        self._audio.extend(self.reader.trailing_packets)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Consecutive frames, dequantized."""

    index: int
    pts: NDArray[np.int64]
    motion: NDArray[np.float32]
    placement: NDArray[np.float32] | None
    flags: NDArray[np.uint8]

    def cut(self, start: int, stop: int) -> Rows:
        """Return frames `start` to `stop`."""
        return Rows(
            index=self.index + start,
            pts=self.pts[start:stop],
            motion=self.motion[start:stop],
            placement=None if self.placement is None else self.placement[start:stop],
            flags=self.flags[start:stop],
        )


def _rows_of(group: Group, header: Header) -> Rows:
    motion = group.motion
    count = len(motion.values)
    return Rows(
        index=motion.first_frame,
        pts=motion.stamps(header),
        motion=motion.dequantize(),
        placement=None if group.placement is None else group.placement.dequantize(),
        flags=motion.flags if motion.flags is not None else np.zeros(count, np.uint8),
    )


def prefetch(items: Iterator[T], depth: int) -> Iterator[T]:
    """Run an iterator in a thread of its own, at most `depth` items ahead.

    Rendering and video encoding then share the processor's cores; an error in the thread is raised
    here. PyTorch runs on one core in that thread: it has workers of its own for what is heavy.
    """
    own = torch.get_num_threads()
    ready: queue.Queue[Callable[[], T]] = queue.Queue(maxsize=depth)
    is_ready, is_stopped = threading.Event(), threading.Event()

    def put(action: Callable[[], T]) -> None:
        while not is_stopped.is_set():
            try:
                ready.put(action, timeout=0.1)
                return
            except queue.Full:
                continue

    def run() -> None:
        torch.set_num_threads(1)
        is_ready.set()
        try:
            for item in items:
                put(lambda item=item: item)  # type: ignore[misc]
                if is_stopped.is_set():
                    return
            put(_raise(StopIteration()))
        except BaseException as error:
            put(_raise(error))

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    is_ready.wait()
    torch.set_num_threads(own)  # else threads made later would begin with one
    try:
        while True:
            try:
                item = ready.get()()
            except StopIteration:
                return
            yield item
    finally:
        is_stopped.set()
        worker.join()


def _raise(error: BaseException) -> Callable[[], Any]:
    def action() -> Any:
        raise error

    return action
