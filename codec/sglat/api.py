"""The library as the commands read, from encode to edit.

```python
import sglat

result = sglat.encode("in.mp4", "out.sglat")
for frame in sglat.decode("out.sglat"):
    show(frame.picture)  # uint8 RGB [H, W, 3]
sglat.decode_video("out.sglat", "out.mp4")  # with its sound
sglat.swap(motion="a.sglat", identity="b.sglat", out="c.sglat")
sglat.decode_video("c.sglat", "c.mp4", onto="b.mp4")
sglat.edit("a.sglat", "e.sglat", ["set mouth 3+0.4@2s-4s", "gain eyes=1.2"])
with sglat.open("c.sglat") as reader:
    print(reader.header.frame_count)
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from sglat.errors import UsageError
from sglat.files import StrPath, atomic_file, open_input, refuse_existing

if TYPE_CHECKING:
    from sglat.bitstream.edit_file import EditReport
    from sglat.bitstream.reader import Reader
    from sglat.bundles.bundle import Bundle
    from sglat.decoder.decode import DecodeConfig, DecodedFrame, Decoder
    from sglat.decoder.output import OutputResult
    from sglat.decoder.paint import FaceTrack
    from sglat.encoder.config import EncodeConfig
    from sglat.encoder.encode import EncodeResult
    from sglat.encoder.enrol import EnrolResult
    from sglat.encoder.everyone import SceneResult
    from sglat.marks.keys import Signer


def encode(
    source: StrPath,
    target: StrPath,
    config: EncodeConfig | None = None,
    *,
    identity: StrPath | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> EncodeResult:
    """Encode a talking-head video.

    After an interruption the same call continues from the work file beside the target.

    Args:
        source: any video FFmpeg reads, with one face or more.
        target: `.sglat` file to write.
        config: choices; None takes the defaults.
        identity: file with the person, by `enrol` or `encode`: only motion is encoded, and the
            result refers to it; shorthand for `config.identity`.
        progress: called with phase, units done and units in all (0 when unknown).

    Returns:
        Sizes, times, messages, and how well the decoded file matches the source.

    Raises:
        FaceError: no face. MediaError: unreadable input. UsageError: a missing input, an existing
            output, contradicting choices. WorkFileError: unfinished work of another input.
            BundleMismatchError, FormatError: the identity is for other weights, or damaged.
    """
    from sglat.encoder.config import EncodeConfig
    from sglat.encoder.encode import encode as run

    config = config or EncodeConfig()
    if identity is not None:
        config = replace(config, identity=Path(identity))
    return run(Path(source), Path(target), config, progress=progress)


def encode_all(
    source: StrPath,
    folder: StrPath,
    config: EncodeConfig | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> SceneResult:
    """Encode every person of a video: a file each and `scene.json`, for `decode_video`.

    After an interruption the same call continues. Errors are those of `encode`.

    Args:
        source: any video FFmpeg reads.
        folder: new or empty; it appears when it is complete.
        config: choices for all people, none for one person.
        progress: called with phase, units done and units in all, of one person after another.
    """
    from sglat.encoder.everyone import encode_all as run

    return run(Path(source), Path(folder), config, watch=lambda _name: progress)


def enrol(
    sources: StrPath | Sequence[StrPath],
    target: StrPath,
    config: EncodeConfig | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> EnrolResult:
    """Make the identity of a person once, so that later encodings need their motion alone.

    After an interruption the same call continues from the work file beside the target.

    Args:
        sources: a video or picture of the person, or several.
        target: `.sglat` file to write; it decodes to up to 16 typical faces.
        config: choices; those of motion and sound have no effect. None takes the defaults.
        progress: called with phase, units done and units in all (0 when unknown).

    Returns:
        Sizes, times and messages.

    Raises:
        FaceError: no face, or an input without this person. MediaError: unreadable input.
        UsageError: a missing input, an existing output. WorkFileError: unfinished work of another
            input.
    """
    from sglat.encoder.enrol import enrol as run

    several = [sources] if isinstance(sources, str | PathLike) else list(sources)
    return run([Path(source) for source in several], Path(target), config, progress=progress)


@contextmanager
def open(path: StrPath) -> Iterator[Reader]:
    """Yield a reader: header, identity and motion groups, without any network.

    Args:
        path: the `.sglat` file.

    Raises:
        FormatError: the bytes break the specification.
        UsageError: no such file.
    """
    from sglat.bitstream.reader import open_reader

    with open_reader(path) as reader:
        yield reader


def decode(
    path: StrPath, *, bundle: Bundle | None = None, config: DecodeConfig | None = None
) -> Iterator[DecodedFrame]:
    """Yield the frames of a file as aligned pictures, in order and in bounded memory.

    Args:
        path: the `.sglat` file.
        bundle: loaded weights; None loads the bundle that the file names.
        config: device, batch and range.

    Raises:
        FormatError: the bytes break the specification.
        BundleMismatchError: the file was made for other weights.
        UsageError: no such file; an empty range.
    """
    from sglat.decoder.decode import Decoder

    with open_input(path) as file:
        yield from Decoder(file, bundle=bundle, config=config).frames()


def decode_video(
    source: StrPath,
    target: StrPath,
    *,
    onto: StrPath | None = None,
    track: str = "auto",
    face: int | None = None,
    bundle: Bundle | None = None,
    config: DecodeConfig | None = None,
    signer: Signer | None = None,
    label: str | None = None,
    force: bool = False,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> OutputResult:
    """Write the frames and the sound of a file as a video.

    Args:
        source: the `.sglat` file, or `scene.json` of `encode_all`.
        target: the video; its suffix chooses container and codecs.
        onto: video or picture into which the face is pasted.
        track: where the face lies in `onto`, see `sglat.onto.choose_track`.
        face: which face of `onto`, 1 the largest.
        bundle: loaded weights; None loads the bundle that the file names.
        config: device, batch and range.
        signer: who signs the video with C2PA (`sglat.marks.keys.find_signer`); None: nobody.
        label: text written into a corner of the pictures; None: what the file asks for.
        force: replace an existing output.
        progress: called with stage, units done and units in all.

    Raises:
        FormatError, BundleMismatchError, MediaError, UsageError: as `sglat.decoder.output`.
    """
    from sglat.bitstream.scene import is_scene
    from sglat.decoder.decode import Decoder
    from sglat.decoder.output import OutputConfig, write_decoded
    from sglat.decoder.scene import SceneDecoder
    from sglat.marks.label import check_label
    from sglat.onto import choose_track

    source, target = Path(source), Path(target)
    tell = progress or (lambda stage, done, total: None)
    with ExitStack() as stack:
        decoder: Decoder
        if is_scene(source):
            if track != "auto" or face is not None:
                raise UsageError("bad-options", "track and face are for files of one person")
            decoder = SceneDecoder(source, stack, bundle=bundle, config=config)
        else:
            file = stack.enter_context(open_input(source))
            decoder = Decoder(file, bundle=bundle, config=config)
        place: FaceTrack | None = None
        notes: list[str] = []
        if onto is not None and not isinstance(decoder, SceneDecoder):
            place, notes = choose_track(
                decoder, source, Path(onto), track, face=face, progress=tell
            )
        output = OutputConfig(
            path=target,
            onto=None if onto is None else Path(onto),
            track=place,
            inputs=(source,),
            signer=signer,
            label=check_label(label) if label else None,
            force=force,
        )
        result = write_decoded(
            decoder, output, progress=lambda done, total: tell("decode", done, total)
        )
    return replace(result, notes=notes + result.notes)


def swap(*, motion: StrPath, identity: StrPath, out: StrPath, force: bool = False) -> None:
    """Write a file with the motion of one file, byte for byte, and the look of another.

    Args:
        motion: file whose motion and sound are taken.
        identity: file whose look is taken.
        out: `.sglat` file to write.
        force: replace an existing output.

    Raises:
        BundleMismatchError: the two were made for different decoders.
        UsageError: an input is missing, or `out` is an input, or exists and `force` is not set.
    """
    from sglat.bitstream.edits import swap as run

    refuse_existing(out, force=force, inputs=(motion, identity))
    with (
        open_input(motion) as driver,
        open_input(identity) as puppet,
        atomic_file(out, force=force) as file,
    ):
        run(driver, puppet, file)


def edit(
    source: StrPath,
    target: StrPath,
    edits: Sequence[str],
    *,
    signer: Signer | None = None,
    force: bool = False,
) -> EditReport:
    """Write a file whose motion is edited by name; its look and all other channels stay.

    Args:
        source: the `.sglat` file.
        target: `.sglat` file to write.
        edits: as on the command line, without the dashes, in their order: `set mouth 3+0.4@2s-4s`.
        signer: who signs the record of origin; None: nobody.
        force: replace an existing output.

    Returns:
        What was changed, and what a user should know.

    Raises:
        UsageError: an edit that cannot be read or does not fit the file; as `swap`.
        BundleMismatchError: a file to mix in is for another decoder.
    """
    from sglat.bitstream.edit_grammar import parse_edit
    from sglat.bundles.names import control_names
    from sglat.marks.editing import edit_stream

    parsed = [parse_edit(*text.strip().partition(" ")[::2]) for text in edits]
    others = [each.source for each in parsed if each.source is not None]
    refuse_existing(target, force=force, inputs=(source, *others))
    with open_input(source) as file, atomic_file(target, force=force) as out:
        return edit_stream(file, out, parsed, own_names=control_names, signer=signer)
