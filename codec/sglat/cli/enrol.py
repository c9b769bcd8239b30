"""`sgl-enrol`: clips and pictures of one person to an identity that `sgl-encode` refers to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sglat.cli import options
from sglat.cli.common import new_app, run, say
from sglat.cli.encode import check_output
from sglat.cli.estimate import TotalBar, clock, expected_seconds
from sglat.files import check_input

app = new_app()


@app.command()
def enrol_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT... OUTPUT",
            help="Videos and pictures of one person, and the .sglat file to write.",
        ),
    ],
    bundle: options.Bundle = "mini",
    preset: options.Preset = "default",
    face: Annotated[
        int,
        typer.Option(min=1, help="Which face to enrol: 1 is the largest over the inputs."),
    ] = 1,
    like: Annotated[
        Path | None, typer.Option(help="Picture of the person to enrol, instead of --face.")
    ] = None,
    identity_bytes: options.IdentityBytes = 64_000,
    resolution: Annotated[
        int | None,
        typer.Option(
            help="Side of the stored person's pictures: 128, 256 or 512 with mini; by default the "
            "largest for which the face is large enough in the inputs."
        ),
    ] = None,
    tune_steps: options.TuneSteps = None,
    consent: options.Consent = "",
    sign: options.Sign = None,
    sign_cert: options.SignCertificate = None,
    sign_key: options.SignKey = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    seed: options.Seed = 0,
    workfile: options.WorkFolder = None,
    resume: options.Resume = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
) -> None:
    """Enrol a person once. After an interruption the same command continues."""
    from sglat.encoder.config import EncodeConfig
    from sglat.encoder.enrol import enrol
    from sglat.marks.provenance import sign_in_place
    from sglat.media.reader import VideoReader

    *sources, target = paths
    if not sources:
        raise typer.BadParameter("expected one input or more, then the .sglat file to write")
    for source in sources:
        check_input(source)
        check_output(source, target, force=force)
    signer, notes = options.chosen_signer(sign, sign_cert, sign_key, is_media=False)
    common = options.common_settings(target, workfile, face, like, threads)
    config = EncodeConfig(
        bundle=bundle,
        preset=preset,
        identity_bytes=identity_bytes,
        resolution=resolution,
        tune_steps=tune_steps,
        consent=consent,
        seed=seed,
        resume=resume,
        device=device,
        force=force,
        **common,
    )
    frames = 0
    for source in sources:
        with VideoReader(source) as reader:  # refused before anything is loaded
            frames += reader.info.expected_frames or 1
    expected = expected_seconds(frames, config, is_enrolled=True)
    if not quiet:
        total = clock(sum(expected.values()))
        say(f"{frames} frames take about {total} on one core, and less if work is resumed")
    bar = TotalBar(expected, is_quiet=quiet)
    try:
        result = enrol(sources, target, config, progress=bar)
        if signer is not None:
            sign_in_place(target, signer)
            result = replace(result, bytes=target.stat().st_size)
            notes.append(f"signed by {signer.title}")
    except KeyboardInterrupt:
        bar.close()
        say(options.stopped_line(common["workfile"]))
        raise typer.Exit(130) from None
    bar.close()
    for line in [*result.messages, *notes]:
        say(line)
    if as_json:
        print(json.dumps(result.to_json()))
        return
    say(
        f"{target}: {result.bytes} bytes, enrolled from {result.frames} frames, "
        f"{result.resolution} px; use it by sgl-encode --identity {target}"
    )


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
