"""The folder of a scene: written whole, and people of it shown with other looks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from sglat.bitstream import edits
from sglat.bitstream.scene import (
    SCENE_NAME,
    Scene,
    SceneFile,
    ScenePerson,
    describe_file,
    open_scene_file,
    pack_scene,
    read_scene,
)
from sglat.errors import UsageError
from sglat.files import AtomicOutput, open_input, refuse_existing

PLATE_NAME: Final = "plate.webp"

Look = int | Path
"""Number of a face of the scene, or a `.sglat` file with an identity."""


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuse an output folder that holds anything, or with `force` anything but a scene.

    Raises:
        UsageError: `output-exists`, or as `refuse_existing`.
    """
    if not folder.is_dir():
        refuse_existing(folder, force=False, is_folder=True)
        return
    held = sorted(child.name for child in folder.iterdir())
    if not held:
        return
    scene = {SCENE_NAME, PLATE_NAME} | {name for name in held if name.endswith(".sglat")}
    others = [name for name in held if name not in scene]
    if others or SCENE_NAME not in held:
        named = (others or held)[0]
        raise UsageError(
            "output-exists",
            f"expected a new or empty folder, {folder} holds {len(held)} files, {named} among "
            "them; choose another",
        )
    if not force:
        raise UsageError("output-exists", f"{folder} holds a scene; use --force to replace it")


def write_folder(scene: Scene, files: Path, folder: Path, *, force: bool) -> None:
    """Write a scene whose files lie in the folder `files`; the new folder gets its name when
    everything is in it.

    Raises:
        UsageError: as `check_folder`.
    """
    check_folder(folder, force=force)
    entries: list[SceneFile] = [*scene.people, *([scene.plate] if scene.plate else [])]
    with AtomicOutput(folder, force=True, is_folder=True) as partial:
        partial.mkdir()
        for entry in entries:
            shutil.copyfile(files / entry.file, partial / entry.file)
        (partial / SCENE_NAME).write_bytes(pack_scene(scene))


def change_looks(
    source: Path,
    looks: Mapping[int, Look],
    folder: Path,
    *,
    force: bool = False,
    finish: Callable[[Path], object] | None = None,
) -> Scene:
    """Write a scene in which people keep motion and place, and are shown with other looks.

    Args:
        source: `scene.json` or its folder.
        looks: number of a face to whose look it is shown with.
        folder: new or empty; with `force` one that holds a scene is replaced.
        force: replace a scene.
        finish: called with each changed file, to sign it.

    Raises:
        FormatError: the scene or one of its files.
        BundleMismatchError: a look of another decoder.
        UsageError: no such face or file; an existing output.
    """
    scene, home = read_scene(source)
    people = {person.face: person for person in scene.people}
    wanted = {*looks, *(look for look in looks.values() if isinstance(look, int))}
    for face in sorted(wanted):
        if face not in people:
            faces = ", ".join(str(number) for number in people)
            raise UsageError("no-such-face", f"expected a face of the scene ({faces}), got {face}")
    check_folder(folder, force=force)
    if folder.resolve() == home.resolve():
        raise UsageError("same-file", f"{folder} would replace the input; choose another output")
    for look in looks.values():
        if isinstance(look, Path):
            refuse_existing(folder, force=True, is_folder=True, inputs=[look])
    with ExitStack() as stack, AtomicOutput(folder, force=True, is_folder=True) as partial:
        partial.mkdir()
        files = {face: open_scene_file(home, person, stack) for face, person in people.items()}
        changed = []
        for face, person in people.items():
            target = partial / person.file
            with target.open("wb") as out:
                if looks.get(face, face) == face:
                    shutil.copyfileobj(files[face], out)
                else:
                    look = looks[face]
                    other = (
                        stack.enter_context(open_input(look))
                        if isinstance(look, Path)
                        else files[look]
                    )
                    for file in (files[face], other):
                        file.seek(0)
                    edits.swap(files[face], other, out)
                files[face].seek(0)
            if looks.get(face, face) != face and finish is not None:
                finish(target)
            changed.append(_described(person, target))
        if scene.plate is not None:
            plate = open_scene_file(home, scene.plate, stack)
            (partial / scene.plate.file).write_bytes(plate.read())
        scene = replace(scene, people=tuple(changed))
        (partial / SCENE_NAME).write_bytes(pack_scene(scene))
    return scene


def _described(person: ScenePerson, target: Path) -> ScenePerson:
    return replace(person, **asdict(describe_file(target)))
