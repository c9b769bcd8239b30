"""Scenes on the command line: all people of a video encoded, and their looks exchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sglat.cli import options
from sglat.cli.common import say, video_source
from sglat.cli.estimate import TotalBar, clock, expected_seconds
from sglat.errors import UsageError

if TYPE_CHECKING:
    from sglat.bitstream.scene_folder import Look
    from sglat.encoder.config import EncodeConfig
    from sglat.marks.keys import Signer


def encode_everyone(
    source: Path,
    folder: Path,
    config: EncodeConfig,
    *,
    signer: Signer | None,
    notes: list[str],
    as_json: bool,
    quiet: bool,
) -> None:
    """Encode every person of a video into a folder, with a bar for each.

    Args:
        source: the video; `-` for standard input.
        folder: the scene to write.
        config: choices for all people.
        signer: of the files; None: nobody.
        notes: further lines for the user.
        as_json: print what was done.
        quiet: no progress.
    """
    from sglat.bundles.bundle import load_bundle
    from sglat.encoder.analysis import clip_of
    from sglat.encoder.everyone import check_request, encode_all
    from sglat.encoder.needs import check_memory, needs_of
    from sglat.encoder.workfile import default_workfile
    from sglat.media.reader import VideoReader

    bars: list[TotalBar] = []
    try:
        with video_source(source, beside=folder) as video:
            check_request(video, folder, config)
            with VideoReader(clip_of(video, config)) as reader:  # refused before anything is loaded
                frames = reader.info.expected_frames
            needs = needs_of(weights := load_bundle(config.bundle), config)
            check_memory(needs, weights)
            expected = {
                name: needs.cost_of(name) * took
                for name, took in expected_seconds(frames, config).items()
            }
            if not quiet and frames:
                total = clock(sum(expected.values()))
                say(f"{frames} frames take about {total} for each person on one core")

            def watch(name: str) -> TotalBar:
                if bars:
                    bars[-1].close()
                if not quiet:
                    say(f"{name}:")
                phases = {"people": 0.03 * frames, "track": 0.03 * frames}
                bars.append(TotalBar(phases if name == "video" else expected, is_quiet=quiet))
                return bars[-1]

            result = encode_all(video, folder, config, watch=watch, finish=signing(signer))
    except KeyboardInterrupt:
        _close(bars)
        say(options.stopped_line(config.workfile or default_workfile(folder)))
        raise typer.Exit(130) from None
    _close(bars)
    for line in [*result.messages, *notes]:
        say(line)
    if as_json:
        record = {"folder": str(folder), "people": result.people, "messages": result.messages}
        print(json.dumps(record))
        return
    for person in result.scene.people:
        say(
            f"{folder / person.file}: {person.bytes} bytes, face {person.face} in "
            f"{person.shown_frames} of {result.scene.frames} frames"
        )


def _close(bars: list[TotalBar]) -> None:
    if bars:
        bars[-1].close()


def signing(signer: Signer | None) -> Callable[[Path], None] | None:
    """Return what signs a file; None without a signer."""
    if signer is None:
        return None
    from sglat.marks.provenance import sign_in_place

    return lambda path: sign_in_place(path, signer)


def exchange(
    source: Path, looks: list[str], folder: Path, *, signer: Signer | None, force: bool
) -> None:
    """Write a scene whose people are shown with other looks, and say what it holds.

    Args:
        source: `scene.json` or its folder.
        looks: `N=M` or `N=FILE` each.
        folder: the scene to write.
        signer: of the changed files; None: nobody.
        force: replace a scene.
    """
    from sglat.bitstream.scene_folder import change_looks

    wanted = parse_looks(looks)
    scene = change_looks(source, wanted, folder, force=force, finish=signing(signer))
    for person in scene.people:
        look = wanted.get(person.face)
        whose = "" if look is None else f" with the look of {look}"
        say(f"{folder / person.file}: {person.bytes} bytes, face {person.face}{whose}")


def parse_looks(texts: list[str]) -> dict[int, Look]:
    """Return faces and their looks of texts such as `1=2` or `1=me.sglat`.

    Raises:
        UsageError: `bad-look` for anything else, or a face twice.
    """
    found: dict[int, Look] = {}
    for text in texts:
        face, _, look = text.partition("=")
        if not face.isascii() or not face.isdigit() or not look or len(face) > 6:
            raise UsageError("bad-look", f"expected N=M or N=FILE, found {text!r}")
        if int(face) in found:
            raise UsageError("bad-look", f"face {face} has two looks")
        is_number = look.isascii() and look.isdigit() and len(look) <= 6
        found[int(face)] = int(look) if is_number else Path(look)
    return found
