"""Several people in one picture: the files of a scene rendered frame by frame and composed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.constants import CHUNKS
from sglat.bitstream.origins import LABEL
from sglat.bitstream.records import FRAME_CUT, FRAME_HELD, Picture, Provenance
from sglat.bitstream.scene import Scene, open_scene_file, read_scene
from sglat.bundles.bundle import Bundle
from sglat.decoder.backdrop import Backdrop
from sglat.decoder.composite import CompositeConfig, Compositor, Pasted, unpasted
from sglat.decoder.decode import DecodeConfig, DecodedFrame, Decoder, Rows
from sglat.decoder.paint import FaceTrack, fit_placement
from sglat.decoder.placement import SIZE
from sglat.errors import FormatError, UsageError
from sglat.files import hash_file
from sglat.media.reader import VideoReader

MAX_PLATE_BYTES: Final = CHUNKS["PLAT"].max_bytes


class SceneDecoder(Decoder):
    """Decodes the people of a scene into common frames; sound and time are the first file's that
    has sound, else the largest person's.

    Args:
        path: `scene.json` or its folder.
        stack: keeps the files open until it is closed.
        bundle: loaded weights; None loads the bundle that the files name.
        config: device, batch and range.

    Raises:
        FormatError: the bytes of the scene or of a file break their specification; a file is
            missing or not the one that the scene names; files that do not belong together.
        BundleMismatchError, UsageError: as `Decoder`.
    """

    def __init__(
        self,
        path: Path,
        stack: ExitStack,
        *,
        bundle: Bundle | None = None,
        config: DecodeConfig | None = None,
    ) -> None:
        self.scene, folder = read_scene(path)
        files = [open_scene_file(folder, person, stack) for person in self.scene.people]
        plate = self._read_plate(folder, stack)
        people = [Decoder(files[0], bundle=bundle, config=config)]
        shared = bundle or people[0].bundle
        people += [Decoder(file, bundle=shared, config=config) for file in files[1:]]
        lead = _lead(self.scene, people)
        files[lead].seek(0)
        super().__init__(files[lead], bundle=shared, config=config)
        people[lead] = self
        self._people: list[Decoder] = people
        self._check()
        self.reader.plate = plate
        self.reader.provenance = _joined([one.reader.provenance for one in people])

    def frames(
        self,
        backdrop: Backdrop | None = None,
        *,
        track: FaceTrack | None = None,
        composite: CompositeConfig | None = None,
    ) -> Iterator[DecodedFrame]:
        """Yield full frames with everybody in them; as `Decoder.frames`."""
        if backdrop is None:
            raise UsageError(
                "no-backdrop",
                "the scene has no plate (sgl-encode --plate): expected --onto VIDEO or PICTURE",
            )
        if track is not None:
            raise UsageError(
                "bad-options", "people of a scene are placed where their files have it"
            )
        if not backdrop.has_face:  # nobody's own surroundings lie below their crop
            composite = replace(composite or CompositeConfig(), is_matched=False)
        actors = [
            _Actor(
                decoder, Compositor(decoder.parse_for(backdrop), composite), backdrop, person.order
            )
            for decoder, person in zip(self._people, self.scene.people, strict=True)
        ]
        actors.sort(key=lambda actor: -actor.order)  # the largest is pasted last, in front
        streams = [actor.faces() for actor in actors]
        for faces in zip(*streams, strict=True):
            if len({face.pts for face in faces}) > 1:
                raise _mismatch("frames at the same times")
            ground = backdrop.frame(faces[0].pts * self.header.time_base)
            with torch.inference_mode():
                shown = _composed(ground, actors, faces)
            yield DecodedFrame(
                index=faces[0].index,
                pts=faces[0].pts,
                picture=shown.picture,
                is_held=all(face.is_held for face in faces),
                generated=shown.generated,
            )

    def onto_notes(self, onto: Path) -> list[str]:
        """Return what a user should know of a video or picture that the people are pasted into."""
        if hash_file(onto) != self.scene.source_sha256:
            return [
                f"--onto: {onto} is not the video of the scene; people are pasted where they were "
                "in that one"
            ]
        with VideoReader(onto) as reader:
            frames = reader.info.frame_count
        if frames in (0, self.scene.frames):
            return []
        return [
            f"--onto: the scene has {self.scene.frames} of the {frames} frames of {onto} and is "
            "pasted from its start; give that part alone"
        ]

    def _read_plate(self, folder: Path, stack: ExitStack) -> Picture | None:
        if self.scene.plate is None:
            return None
        if self.scene.plate.bytes > MAX_PLATE_BYTES:
            raise FormatError("scene-value", f"plate: expected at most {MAX_PLATE_BYTES} bytes")
        file = open_scene_file(folder, self.scene.plate, stack)
        return Picture(media_type="image/webp", data=file.read(MAX_PLATE_BYTES))

    def _check(self) -> None:
        """Refuse files that are not of one video."""
        scene = self.scene
        for decoder in self._people:
            header = decoder.header
            if header.placement_steps is None:
                raise _mismatch("placements in all files")
            if header.source_size != (scene.width, scene.height):
                raise _mismatch(f"a source of {scene.width}x{scene.height} pixels")
            if header.time_base != self.header.time_base:
                raise _mismatch(f"a time base of {self.header.time_base} s")
            if header.frame_count not in (0, None, scene.frames):
                raise _mismatch(f"{scene.frames} frames")


@dataclass(frozen=True, kw_only=True)
class _Face:
    """One person in one frame."""

    index: int
    pts: int
    is_held: bool
    """They are not in it; the others are None then."""
    is_restart: bool
    """The frame does not continue the one before."""
    crop: Tensor | None = None
    """`[3, R, R]`."""
    mask: Tensor | None = None
    """`[2, R, R]`, see `Compositor.masks`."""
    place: NDArray[np.float64] | None = None
    """`[4]` in pixels of the backdrop."""


class _Actor:
    """Renders one person of a scene; `order` is 1 for the largest."""

    def __init__(
        self, decoder: Decoder, compositor: Compositor, backdrop: Backdrop, order: int
    ) -> None:
        self.compositor, self.order = compositor, order
        self._decoder, self._size = decoder, backdrop.size
        self._is_after_held = False

    def faces(self) -> Iterator[_Face]:
        """Yield the person in each frame."""
        for rows in self._decoder.batches():
            yield from self._batch(rows)

    def _batch(self, rows: Rows) -> list[_Face]:
        if rows.placement is None:
            raise _mismatch("placements in all frames")
        held = rows.flags & FRAME_HELD > 0
        places = fit_placement(rows.placement, self._decoder.header.source_size, self._size)
        restarts = (rows.flags & FRAME_CUT > 0) | np.append(self._is_after_held, held[:-1])
        self._is_after_held = bool(held[-1])
        faces = [
            _Face(index=rows.index + at, pts=int(pts), is_held=True, is_restart=bool(restarts[at]))
            for at, pts in enumerate(rows.pts)
        ]
        shown = np.flatnonzero(~held)
        if not len(shown):
            return faces
        with torch.inference_mode():
            side = float(places[shown, SIZE].max())
            crops = self._decoder.render(rows.motion[shown], side)
            masks = self.compositor.masks(crops, restarts=restarts[shown].tolist())
        for row, crop, mask in zip(shown.tolist(), crops, masks, strict=True):
            faces[row] = replace(faces[row], is_held=False, crop=crop, mask=mask, place=places[row])
        return faces


def _composed(
    ground: NDArray[np.uint8], actors: Sequence[_Actor], faces: Sequence[_Face]
) -> Pasted:
    """Return a frame with everybody in it, the first of them behind."""
    shown, clear = unpasted(ground), np.ones(ground.shape[:2], np.float32)
    places = [face.place for face in faces]
    for number, (actor, face) in enumerate(zip(actors, faces, strict=True)):
        if face.crop is None or face.mask is None or face.place is None:
            continue
        rivals = [
            (one, at > number) for at, one in enumerate(places) if one is not None and at != number
        ]
        shown = actor.compositor.paste(
            shown.picture, face.crop, face.mask, face.place, is_restart=face.is_restart,
            rivals=rivals,
        )  # fmt: skip
        clear *= 1 - shown.generated
    return Pasted(picture=shown.picture, generated=1 - clear)


def _lead(scene: Scene, people: Sequence[Decoder]) -> int:
    """Return the first person whose file has sound, else the largest one."""
    largest = min(range(len(people)), key=lambda at: scene.people[at].order)
    sounding = [at for at, one in enumerate(people) if one.reader.audio_format is not None]
    return sounding[0] if sounding else largest


def _joined(records: Sequence[Provenance | None]) -> Provenance | None:
    """Return the record that the common pictures carry: a statement of consent where everybody
    gave one, and a label where one file asks for it."""
    known = [record for record in records if record is not None]
    if not known:
        return None
    consents = list(dict.fromkeys(record.consent for record in known))
    is_whole = len(known) == len(records) and all(consents)
    labels = [record.extra[LABEL] for record in known if record.extra.get(LABEL)]
    extra = known[0].extra | ({LABEL: labels[0]} if labels else {})
    return replace(known[0], consent="; ".join(consents) if is_whole else "", extra=extra)


def _mismatch(expected: str) -> FormatError:
    return FormatError(
        "scene-mismatch", f"the files of the scene do not belong together: expected {expected}"
    )
