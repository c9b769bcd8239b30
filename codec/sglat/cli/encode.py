"""`sgl-encode`: a video of one person to a `.sglat` file.

How long that takes is estimated before it starts; one bar shows all its stages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sglat.cli import options
from sglat.cli.common import new_app, parse_time, run, say, video_source
from sglat.cli.estimate import TotalBar, clock, expected_seconds
from sglat.errors import UsageError
from sglat.files import refuse_existing

if TYPE_CHECKING:
    from sglat.encoder.config import EncodeConfig

app = new_app()


@app.command()
def encode_command(
    source: Annotated[
        Path, typer.Argument(help="A video with one person's face; - reads standard input.")
    ],
    target: Annotated[
        Path | None,
        typer.Argument(
            help="The .sglat file to write; with --list-faces the contact sheet, with --all-faces "
            "a new folder."
        ),
    ] = None,
    bundle: options.Bundle = "mini",
    face: Annotated[
        int,
        typer.Option(min=1, help="Which face to follow: 1 is the largest over the clip."),
    ] = 1,
    like: Annotated[
        Path | None, typer.Option(help="Picture of the person to follow, instead of --face.")
    ] = None,
    list_faces: Annotated[
        bool,
        typer.Option(
            "--list-faces", help="Only show who is there: a table and a numbered contact sheet."
        ),
    ] = False,
    all_faces: Annotated[
        bool,
        typer.Option(
            "--all-faces",
            help="Write a folder with a file for each person and scene.json, for sgl-decode.",
        ),
    ] = False,
    preset: options.Preset = "default",
    identity: Annotated[
        Path | None,
        typer.Option(
            help="A file with the person, by sgl-enrol or sgl-encode: only motion is encoded, and "
            "the result refers to that file."
        ),
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed", help="Carry the person of --identity in the result.")
    ] = False,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt", help="Refine the person of --identity on this clip; the result carries them."
        ),
    ] = False,
    quality: Annotated[
        int | None,
        typer.Option(
            "--quality",
            "-q",
            min=0,
            max=100,
            help="Motion quality; default: 62, lowered to stay within 47 bits a frame.",
        ),
    ] = None,
    motion_bits: Annotated[
        float | None,
        typer.Option(min=1, help="Most bits a frame for the motion; lowers the quality if needed."),
    ] = None,
    identity_bytes: options.IdentityBytes = 64_000,
    resolution: Annotated[
        int | None,
        typer.Option(
            help="Side of the stored person's pictures: 128, 256 or 512 with mini; by default the "
            "largest for which the face is large enough in the source."
        ),
    ] = None,
    solver: Annotated[
        Literal["fast", "paper"], typer.Option(help="How the motion is solved for.")
    ] = "fast",
    target_picture: Annotated[
        Literal["frame", "inverted"] | None,
        typer.Option(
            "--target",
            help="Match the camera's frame or its inversion; default: frame, but inverted with "
            "--solver paper.",
        ),
    ] = None,
    tuning: Annotated[
        Literal["manifold", "id-frame", "pti", "none"],
        typer.Option(
            help="How the generator is tuned to the person: within what a file can carry, on many "
            "frames or the ID frame alone; by pivotal tuning as published, then truncated; or not."
        ),
    ] = "manifold",
    tune_steps: options.TuneSteps = None,
    tune_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to tune on; default: 48.")
    ] = None,
    plate: Annotated[
        bool, typer.Option("--plate", help="Store a still background for full frames.")
    ] = False,
    start: Annotated[str, typer.Option(help="Seconds or m:ss from which on to encode.")] = "0",
    end: Annotated[str, typer.Option(help="Seconds or m:ss; empty: to the end.")] = "",
    audio: Annotated[
        Literal["auto", "copy", "flac", "opus", "aac", "none"],
        typer.Option(help="How sound is stored; auto copies it, and makes FLAC of PCM."),
    ] = "auto",
    consent: options.Consent = "",
    sign: options.Sign = None,
    sign_cert: options.SignCertificate = None,
    sign_key: options.SignKey = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    seed: options.Seed = 0,
    workfile: options.WorkFolder = None,
    resume: options.Resume = True,
    self_check: Annotated[
        bool | None,
        typer.Option(
            "--self-check/--no-self-check",
            help="Decode the result and measure it; default: with all presets but live.",
        ),
    ] = None,
    similarity_plot: Annotated[
        Path | None, typer.Option(help="Write identity similarity over time as SVG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
) -> None:
    """Encode a video. After an interruption the same command continues."""
    chosen = dict(locals())
    from sglat.bitstream.info import describe, stream_bytes
    from sglat.bundles.bundle import load_bundle
    from sglat.encoder.analysis import clip_of
    from sglat.encoder.config import check_choices
    from sglat.encoder.encode import encode
    from sglat.encoder.needs import check_memory, needs_of
    from sglat.marks.provenance import sign_in_place
    from sglat.media.reader import VideoReader

    if list_faces:
        sheet = sheet_path(source, target)
        refuse_existing(sheet, force=force, inputs=(source,))
        print_faces(source, sheet, bundle, parse_time(start) or 0.0, parse_time(end), as_json)
        return
    if target is None:
        raise typer.BadParameter("expected the .sglat file to write")
    if not all_faces:
        check_output(source, target, force=force)
    signer, notes = options.chosen_signer(sign, sign_cert, sign_key, is_media=False)
    config = config_of(chosen, target)
    check_choices(config)
    if all_faces:
        from sglat.cli.scenes import encode_everyone

        encode_everyone(
            source, target, config, signer=signer, notes=notes, as_json=as_json, quiet=quiet
        )
        return
    bar = TotalBar({}, is_quiet=True)
    try:
        with video_source(source, beside=target) as video:
            with VideoReader(clip_of(video, config)) as reader:  # refused before anything is loaded
                frames = reader.info.expected_frames
            expected = expected_seconds(frames, config)
            needs = needs_of(weights := load_bundle(bundle), config)
            check_memory(needs, weights)
            expected = {name: needs.cost_of(name) * took for name, took in expected.items()}
            if not quiet:
                say(needs.line())
            if not quiet and frames:
                total = clock(sum(expected.values()))
                say(f"{frames} frames take about {total} on one core, and less if work is resumed")
            bar = TotalBar(expected, is_quiet=quiet)
            result = encode(video, target, config, progress=bar)
            if signer is not None:
                sign_in_place(target, signer)
                with target.open("rb") as file:
                    sizes = stream_bytes(describe(file))
                result = replace(result, bytes_by_stream=sizes)
                notes.append(f"signed by {signer.title}")
    except KeyboardInterrupt:
        bar.close()
        say(options.stopped_line(config.workfile or target))
        raise typer.Exit(130) from None
    bar.close()
    record = result.to_json()
    for line in [*result.messages, *notes]:
        say(line)
    if as_json:
        print(json.dumps(record))
        return
    say(
        f"{target}: {target.stat().st_size} bytes, {result.frames} frames, "
        f"motion {record['kbit_per_second_motion']} kbit/s, "
        f"{record['seconds_per_frame']} s a frame"
    )


def config_of(chosen: Mapping[str, Any], target: Path) -> EncodeConfig:
    """Return the config of what was chosen on the command line.

    Args:
        chosen: values by the names of this command's parameters.
        target: the output, beside which unfinished work goes by default.

    Raises:
        UsageError: times that cannot be read; `face` and `like` at once.
    """
    from sglat.encoder.config import EncodeConfig

    common = options.common_settings(
        target, chosen["workfile"], chosen["face"], chosen["like"], chosen["threads"]
    )
    own = {field.name for field in fields(EncodeConfig)} - {"target"} - common.keys()
    return EncodeConfig(
        **{name: value for name, value in chosen.items() if name in own},
        target=chosen["target_picture"],
        start_seconds=parse_time(chosen["start"]) or 0.0,
        end_seconds=parse_time(chosen["end"]),
        **common,
    )


def sheet_path(source: Path, target: Path | None) -> Path:
    """Return where the contact sheet goes: a picture's name, or one made from the other names."""
    from sglat.encoder.face_sheet import SHEET_SUFFIXES

    if target is not None and target.suffix.lower() in SHEET_SUFFIXES:
        return target
    stem = source.stem if target is None else target.stem
    return (Path() if target is None else target.parent) / f"{stem}-faces.png"


def print_faces(
    source: Path, sheet: Path, bundle: str, start: float, end: float | None, as_json: bool
) -> None:
    """Print a table of the people in a video, and write the contact sheet."""
    from sglat.encoder.config import EncodeConfig
    from sglat.encoder.encode import list_faces

    config = EncodeConfig(bundle=bundle, start_seconds=start, end_seconds=end)
    with video_source(source, beside=sheet) as video:
        people = list_faces(video, sheet, config)
    if as_json:
        print(json.dumps({"faces": people.table(), "sheet": str(sheet)}))
        return
    print("face      from        to  side  share")
    for row in people.table():
        print(
            f"{row['face']:4d}  {row['from_seconds']:6.2f} s  {row['to_seconds']:6.2f} s  "
            f"{row['side_pixels']:4d}  {row['share']:5.0%}"
        )
    say(f"{sheet}: {len(people.faces)} faces; choose with --face N or --like PICTURE")


def check_output(source: Path, target: Path, *, force: bool) -> None:
    """Refuse an output that would overwrite a file, before hours of work.

    Raises:
        UsageError: an existing output, the input itself, or not the name of a `.sglat` file.
    """
    from sglat.media.containers import CONTAINERS
    from sglat.media.pictures import STILL_SUFFIXES

    refuse_existing(target, force=force, inputs=[source])
    suffix = target.suffix.lower()
    if suffix == "" or suffix in CONTAINERS or suffix in STILL_SUFFIXES:
        raise UsageError(
            "output-name", f"expected a file name such as {target.stem}.sglat, got {target}"
        )


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
