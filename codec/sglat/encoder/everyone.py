"""Every person of a video in one pass: a `.sglat` file each and the scene that joins them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sglat.bitstream.scene import Scene, ScenePerson, describe_file
from sglat.bitstream.scene_folder import PLATE_NAME, check_folder, write_folder
from sglat.decoder.paint import read_track
from sglat.decoder.placement import CENTRE_X, CENTRE_Y, SIZE
from sglat.encoder.analysis import begin, clip_of
from sglat.encoder.config import EncodeConfig
from sglat.encoder.crops import find_empty_plate
from sglat.encoder.encode import encode
from sglat.encoder.follow import Follower
from sglat.encoder.guide import Guide
from sglat.encoder.people import People, PeopleConfig
from sglat.encoder.stages import Made, Progress, Runner, stage_key
from sglat.encoder.track import Track, TrackConfig, follow_all, identifier, track
from sglat.encoder.workfile import Store, WorkFile, config_hash, default_workfile, remove_work
from sglat.errors import FaceError, UsageError
from sglat.files import check_input, output_lock
from sglat.media.reader import Clip

MOST_PEOPLE: Final = 8
"""Largest faces that are encoded; each takes as long as a single encoding."""
LEAST_FRAMES: Final = 10
"""Frames with their face that a person needs: 0.4 s at 25 frames/s."""
_OF_ONE: Final = ("face", "like", "identity", "embed", "adapt", "similarity_plot")
"""Choices that concern one person."""
_UNSTORED: Final = ("workfile", "keep_workfile", "resume", "force", "threads")
"""Choices that do not change the files."""

Watch = Callable[[str], Progress | None]
"""Called with `video` and with the name of each person; returns the progress of that part."""


@dataclass(frozen=True, kw_only=True)
class SceneResult:
    """What was encoded."""

    folder: Path
    """With the files and `scene.json`."""
    scene: Scene
    """What `scene.json` holds."""
    people: list[dict[str, Any]]
    """Cost and result of each person, see `EncodeResult.to_json`."""
    messages: list[str]
    """What a user should know, one line each."""


def encode_all(
    source: Path,
    folder: Path,
    config: EncodeConfig | None = None,
    *,
    watch: Watch | None = None,
    finish: Callable[[Path], object] | None = None,
) -> SceneResult:
    """Encode every person of a video.

    The folder appears when it is complete. After an interruption the same call continues. The file
    of face N is that of a single encoding of this face; the largest one's has the sound.

    Args:
        source: the video.
        folder: new or empty; with `config.force` one that holds a scene is replaced.
        config: choices for all people.
        watch: gives the progress callback of each part.
        finish: called with each complete file, to sign it.

    Raises:
        FaceError: no face, or none for long enough.
        UsageError: a choice for one person; an existing output.
        MediaError, WorkFileError: as `encode`.
    """
    config = config or EncodeConfig()
    source, folder = Path(source), Path(folder)
    check_request(source, folder, config)
    work = config.workfile or default_workfile(folder)
    with output_lock(folder):
        if not config.resume:
            remove_work(work)
        tell = watch or (lambda _name: None)
        run = begin(source, work, config, tell("video"))
        try:
            result = _encode_all(run, clip_of(source, config), folder, config, tell, finish)
        except FaceError:  # a retry would fail too
            run.work.remove()
            raise
        if not config.keep_workfile:
            run.work.remove()
    return result


def check_request(source: Path, folder: Path, config: EncodeConfig) -> None:
    """Refuse choices and paths that contradict each other, before any work.

    Raises:
        UsageError: as `encode_all`.
    """
    for name in _OF_ONE:
        if getattr(config, name) != getattr(EncodeConfig(), name):
            option = name.replace("_", "-")
            raise UsageError("bad-options", f"--{option} is for one person, --all-faces for all")
    check_input(source)
    check_folder(folder, force=config.force)
    inside = folder.resolve()
    for path in (source, config.workfile):
        if path is not None and inside in (path.resolve(), *path.resolve().parents):
            raise UsageError("same-file", f"{path} lies in the output folder {folder}")


def _encode_all(
    run: Runner,
    clip: Clip,
    folder: Path,
    config: EncodeConfig,
    tell: Watch,
    finish: Callable[[Path], object] | None,
) -> SceneResult:
    video = run.video(clip)
    people = run(PeopleConfig(resolution=run.bundle.resolution), video)
    if not people.value.faces:
        raise FaceError("no-face", f"expected a face, found none in {clip.path}")
    messages = []
    count = len(people.value.faces)
    if count > MOST_PEOPLE:
        messages.append(
            f"{count} people found: the {MOST_PEOPLE} largest are encoded; any other one by "
            "sgl-encode --face N"
        )
    tracks = _track_all(run, clip, people, min(count, MOST_PEOPLE))
    chosen = {}
    for face, found in tracks.items():
        shown = 0 if found is None else int((~found.held).sum())
        if shown >= min(LEAST_FRAMES, 1 if found is None else len(found)):
            chosen[face] = found
            continue
        messages.append(
            f"face {face} is left out: seen in {shown} frames, at least {LEAST_FRAMES} are needed"
        )
    if not chosen:
        raise FaceError(
            "no-face", f"expected a person seen in {LEAST_FRAMES} frames of {clip.path}"
        )
    cuts = sum(int(one.cut.sum()) for one in tracks.values() if one is not None)
    if config.plate and cuts:
        messages.append("the plate is one for the whole video, which has cuts: compose with --onto")
    files = run.work.folder / "files"
    files.mkdir(exist_ok=True)
    records: dict[int, dict[str, Any]] = {}
    for face in chosen:
        own = replace(
            config, face=face, workfile=_own_work(run, face), keep_workfile=True, plate=False,
            audio="none" if records else config.audio, force=True, resume=True,
        )  # fmt: skip
        key = config_hash("encoded", _stored_choices(own), people.key, run.bundle.decoder_id.hex(),
                          finish is not None)  # fmt: skip
        try:
            records[face] = _encode_one(run, clip, own, files, key, tell, finish)
        except FaceError as error:
            messages.append(f"face {face} is left out: {error.message}")
            continue
        lines = records[face]["messages"]
        messages += [f"{_name(face)}: {line}" for line in lines if _is_own(line)]
    if not records:
        raise FaceError("no-face", f"nobody in {clip.path} could be encoded")
    scene = _scene_of(clip, files, list(records), config, run.work.source.split(":")[0])
    write_folder(scene, files, folder, force=config.force)
    return SceneResult(folder=folder, scene=scene, people=list(records.values()), messages=messages)


def _is_own(line: str) -> bool:
    """Whether a message concerns more than what the scene holds anyway."""
    return "faces seen" not in line and "another person" not in line


def _name(face: int) -> str:
    return f"person-{face}"


def _own_work(run: Runner, face: int) -> Path:
    return run.work.folder / _name(face)


def _track_all(
    run: Runner, clip: Clip, people: Made[People], count: int
) -> dict[int, Track | None]:
    """Return the track of each face, None where it was not found, after one pass over the video;
    each person's work file then holds the stages that it has in common with the others."""
    video, identify = run.video(clip), identifier(run.bundle)
    several = len(people.value.faces) > 1
    stores: dict[int, Store] = {}
    pairs = []
    for face in range(1, count + 1):
        own, stage = WorkFile(_own_work(run, face), source=run.work.source), TrackConfig(face=face)
        _copy_store(run.work.open("people", people.key), own.open("people", people.key))
        stores[face] = own.open("track", stage_key(stage, run.bundle, (video, people)))
        guide = Guide(people.value, face) if several else None
        if not stores[face].is_done:
            follower = Follower(run.bundle.faces, stage, guide=guide, identify=identify)
            pairs.append((follower, stores[face]))
    with run.clock("track"):
        if pairs:
            follow_all(clip, pairs, run.teller("track"))
    return {
        face: track(clip, run.bundle.faces, store, TrackConfig(face=face), people=people.value)
        if store.is_done
        else None
        for face, store in stores.items()
    }


def _copy_store(one: Store, other: Store) -> None:
    """Give another work file the finished results of a scan for people."""
    if not other.is_done:
        names = ("frame", "jump", "score", "box", "vector", "time")
        if not other.rows:
            other.append({name: one.read(name) for name in names})
        other.finish(facts=one.result()[1])


def _stored_choices(config: EncodeConfig) -> dict[str, Any]:
    choices = {k: v for k, v in asdict(config).items() if k not in _UNSTORED}
    return {k: str(v) if isinstance(v, Path) else v for k, v in choices.items()}


def _encode_one(
    run: Runner,
    clip: Clip,
    config: EncodeConfig,
    files: Path,
    key: str,
    tell: Watch,
    finish: Callable[[Path], object] | None,
) -> dict[str, Any]:
    """Encode one person into the folder `files`, or return what is stored of that."""
    name = _name(config.face)
    target, store = files / f"{name}.sglat", run.work.open(f"encoded{config.face}", key)
    if store.is_done and target.exists():
        facts = store.result()[1]
        if describe_file(target).sha256 == facts["sha256"]:
            record: dict[str, Any] = facts["record"]
            return record
    record = encode(clip.path, target, config, progress=tell(name)).to_json()
    record |= {"face": config.face, "path": target.name}
    if finish is not None:
        finish(target)
    store.finish(facts={"sha256": describe_file(target).sha256, "record": record})
    return record


def _scene_of(
    clip: Clip, files: Path, faces: list[int], config: EncodeConfig, source_sha256: str
) -> Scene:
    """Return the scene of the files `person-N.sglat`, and write the plate where it is wanted."""
    tracks = {face: read_track(files / f"{_name(face)}.sglat") for face in faces}
    sizes = {face: float(one.placement[~one.is_held, SIZE].mean()) for face, one in tracks.items()}
    largest = sorted(faces, key=lambda face: (-sizes[face], face))
    people = []
    for face, one in tracks.items():
        shown = np.flatnonzero(~one.is_held)
        centre = one.placement[shown].mean(axis=0)
        people.append(
            ScenePerson(
                **asdict(describe_file(files / f"{_name(face)}.sglat")),
                face=face,
                order=largest.index(face) + 1,
                first_frame=int(shown[0]),
                last_frame=int(shown[-1]),
                shown_frames=len(shown),
                centre=(round(float(centre[CENTRE_X]), 1), round(float(centre[CENTRE_Y]), 1)),
                size=round(sizes[face], 1),
            )
        )
    plate = None
    if config.plate:
        picture = find_empty_plate(clip, [(one.placement, one.is_held) for one in tracks.values()])
        (files / PLATE_NAME).write_bytes(picture.data)
        plate = describe_file(files / PLATE_NAME)
    width, height = tracks[faces[0]].size
    return Scene(
        source_sha256=source_sha256, width=width, height=height,
        frames=len(tracks[faces[0]].placement), people=tuple(people), plate=plate,
    )  # fmt: skip
