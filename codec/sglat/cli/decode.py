"""`sgl-decode`: a `.sglat` file back to video, pictures or a pipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sglat.cli.common import StageBar, new_app, open_source, parse_time, run, say
from sglat.cli.options import (
    Label,
    LabelText,
    Marked,
    MarksItself,
    Sign,
    SignCertificate,
    SignKey,
    check_word,
    chosen_label,
    chosen_signer,
)
from sglat.cli.play import is_page, refuse_others, write_page
from sglat.errors import UsageError

if TYPE_CHECKING:
    from sglat.decoder.decode import DecodeConfig
    from sglat.decoder.output import OutputConfig

app = new_app()


@app.command()
def decode_command(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            help="A .sglat file, or scene.json of sgl-encode --all-faces; - reads standard input."
        ),
    ],
    target: Annotated[
        Path, typer.Argument(help="A video, a page (.html), a folder with --png, or - for raw RGB.")
    ],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    start: Annotated[str, typer.Option(help="Seconds or m:ss.")] = "0",
    end: Annotated[str, typer.Option(help="Seconds or m:ss; empty: to the end.")] = "",
    size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Side of aligned pictures in pixels.")
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option(
            help="Video or picture to paste the face into; for a scene also `plate`, its own "
            "background, which is the default."
        ),
    ] = None,
    track: Annotated[
        str,
        typer.Option(
            metavar="AUTO|OWN|FILE",
            help="Placement in --onto: auto follows its face, own is that of the source, or a "
            ".sglat made of --onto.",
        ),
    ] = "auto",
    face: Annotated[
        int | None,
        typer.Option(
            min=1, help="Which face of --onto to follow: 1 is the largest; default: see --track."
        ),
    ] = None,
    mask: Annotated[
        Literal["face", "head", "crop"], typer.Option(help="What is pasted with --onto.")
    ] = "face",
    feather: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="Softness of its seam, as a share of the crop's side."),
    ] = 0.05,
    crop: Annotated[
        bool, typer.Option("--crop", help="Aligned face only, without the stored background.")
    ] = False,
    png: Annotated[bool, typer.Option("--png", help="Write numbered PNG files.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Write rgb24 to standard output.")] = False,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Use only the first identity layers.")
    ] = None,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Swapped motion as it is, not relative to neutral.")
    ] = False,
    identity_file: Annotated[
        Path | None, typer.Option(help="File that holds the identity, if detached.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Folder or name of the weights; default: the file's own.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Frames rendered together.")] = 8,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: all.")] = 0,
    half: Annotated[
        bool | None,
        typer.Option("--half/--no-half", help="16-bit features; default: where they are faster."),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            help="FFmpeg video encoder; auto: the container's own, H.264 in hardware if possible."
        ),
    ] = "auto",
    crf: Annotated[
        int | None, typer.Option(min=0, help="Quality on the encoder's own scale, 0 the best.")
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option("--quality", "-q", min=0, max=100, help="Quality with any encoder."),
    ] = None,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Write no sound.")] = False,
    audio: Annotated[
        Path | None, typer.Option(help="File whose sound is taken instead of the stored one.")
    ] = None,
    skip_lost: Annotated[
        bool,
        typer.Option("--skip-lost", help="Leave out frames without the face, and their sound."),
    ] = False,
    sign: Sign = None,
    sign_cert: SignCertificate = None,
    sign_key: SignKey = None,
    is_marked: Marked = True,
    label: Label = None,
    label_text: LabelText = None,
    marks_itself: MarksItself = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
) -> None:
    """Decode a file with its sound in sync; the video is marked as generated.

    OUT.html is a page that plays the file in any browser, offline.
    """
    chosen = dict(locals())
    if is_page(target) and not (png or raw):
        refuse_others(context)
        write_page(source, target, bundle, identity_file, as_json=as_json, force=force)
        return
    import torch

    from sglat.bitstream.scene import is_scene
    from sglat.bundles.bundle import load_bundle
    from sglat.decoder.decode import Decoder
    from sglat.decoder.output import PIPE, check_output, write_decoded
    from sglat.decoder.scene import SceneDecoder
    from sglat.networks.devices import choose_device
    from sglat.onto import choose_track

    is_raw = raw or target == PIPE
    if is_raw and (png or as_json):
        raise UsageError("bad-options", "raw frames leave no room for --png or --json")
    config, output, unsigned = configs_of(chosen)
    if is_raw and sign:
        raise UsageError("bad-options", "raw frames have no place for a signature")
    if threads:
        torch.set_num_threads(threads)
    given = Path(track) if track not in ("auto", "own") else None
    is_several = is_scene(source)
    if is_several:
        if track != "auto" or face is not None or identity_file is not None or crop or size:
            raise UsageError(
                "bad-options",
                "a scene goes without --track, --face, --identity-file, --crop and --size",
            )
        onto = None if str(onto) == "plate" and not Path("plate").exists() else onto
    if onto is None and (track != "auto" or face is not None):
        raise UsageError("bad-options", "--track and --face need --onto")
    output = replace(
        output,
        form="raw" if is_raw else output.form,
        onto=onto,
        inputs=tuple(path for path in (source, identity_file, given) if path is not None),
        signer=None if is_raw else output.signer,
    )
    bar = StageBar(is_quiet=quiet)
    with ExitStack() as stack:
        weights = load_bundle(bundle, choose_device(device)) if bundle else None
        decoder: Decoder
        notes: list[str] = []
        if is_several:
            scene = decoder = SceneDecoder(source, stack, bundle=weights, config=config)
            notes = [] if onto is None else scene.onto_notes(onto)
        else:
            file = stack.enter_context(open_source(source))
            decoder = Decoder(file, bundle=weights, config=config, identity_file=identity_file)
        if onto is not None and not is_several:
            check_output(output)
            place, notes = choose_track(decoder, source, onto, track, face=face, progress=bar)
            output = replace(output, track=place)
        result = write_decoded(
            decoder, output, progress=lambda done, total: bar("decode", done, total)
        )
    bar.close()
    for note in notes + result.notes + unsigned:
        say(note)
    if result.held_frames:
        what = "left out" if skip_lost else "held"
        total = result.frames + (result.held_frames if skip_lost else 0)
        say(f"{result.held_frames} of {total} frames do not show the face: {what}")
    if as_json:
        print(json.dumps(describe(result, target)))


def configs_of(chosen: Mapping[str, Any]) -> tuple[DecodeConfig, OutputConfig, list[str]]:
    """Return the configs of what was chosen on the command line, and why nothing is signed.

    Args:
        chosen: values by the names of this command's parameters.

    Raises:
        UsageError: options that contradict each other; times that cannot be read; no such key.
    """
    from sglat.decoder.composite import CompositeConfig
    from sglat.decoder.decode import DecodeConfig
    from sglat.decoder.output import OutputConfig

    if chosen["no_audio"] and chosen["audio"] is not None:
        raise UsageError("bad-options", "--audio and --no-audio contradict each other")
    if chosen["crf"] is not None and chosen["quality"] is not None:
        raise UsageError("bad-options", "--crf and --quality contradict each other")
    check_word(chosen["is_marked"], chosen["label"], chosen["marks_itself"])
    config = DecodeConfig(
        transfer="absolute" if chosen["absolute"] else "relative",
        start_seconds=parse_time(chosen["start"]) or 0.0,
        end_seconds=parse_time(chosen["end"]),
        **{name: chosen[name] for name in ("device", "batch", "layers", "size", "half")},
    )
    text = chosen_label(chosen["label"], chosen["label_text"])
    signer, unsigned = chosen_signer(
        chosen["sign"], chosen["sign_cert"], chosen["sign_key"], is_media=True
    )
    same = ("onto", "encoder", "crf", "quality", "audio", "skip_lost", "force", "threads")
    output = OutputConfig(
        path=chosen["target"],
        composite=CompositeConfig(mask=chosen["mask"], feather=chosen["feather"]),
        form="png" if chosen["png"] else "video",
        crop_only=chosen["crop"],
        has_sound=not chosen["no_audio"],
        signer=signer,
        has_watermark=chosen["is_marked"],
        label=text,
        **{name: chosen[name] for name in same},
    )
    return config, output, unsigned


def describe(result: Any, target: Path) -> dict[str, object]:
    """Return the result for `--json`."""
    return {
        "output": str(target),
        "signer": result.signer or None,
        "watermark": result.watermark or None,
        "label": result.label or None,
        "frames": result.frames,
        "held_frames": result.held_frames,
        "width": result.width,
        "height": result.height,
        "seconds": round(result.seconds, 3),
        "frames_per_second": round(result.frames_per_second, 2),
    }


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
