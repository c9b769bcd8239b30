"""`sgl-encode`: a video of one person to a `.sglat` file.

How long that takes is estimated before it starts; one bar shows all its stages.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from sglat.cli.common import (
    SECONDS_BETWEEN_LINES,
    StageBar,
    new_app,
    open_bar,
    parse_time,
    run,
    say,
    video_source,
)
from sglat.errors import UsageError
from sglat.files import refuse_existing

if TYPE_CHECKING:
    from sglat.encoder.config import EncodeConfig

app = new_app()

# One thread of the machine of benchmarks/results/RESULTS.md, section "Encoding: seconds a frame by
# stage"; the bar corrects them by the time that has passed.
FRAME_SECONDS: Final = {
    "track": 0.012, "align": 0.018, "invert": 0.048, "pose": 0.16, "expression": 0.66,
    "check": 0.066,
}  # fmt: skip
STEP_SECONDS: Final = {"refine": 0.114, "tune": 0.12, "detail": 0.08}
JACOBIAN_SECONDS: Final = 15.0
INVERTED_FRAMES: Final = 400  # at most, spread over the clip
LEAST_SECONDS: Final = 2.0  # of work before the time left is corrected
PHASES: Final = (
    "track",
    "align",
    "invert",
    "refine",
    "tune",
    "detail",
    "jacobian",
    "pose",
    "expression",
)


def expected_seconds(frames: int, config: EncodeConfig) -> dict[str, float]:
    """Return an estimate for a clip of some frames by phase, in the order in which they run."""
    counts = {name: frames for name in FRAME_SECONDS}
    counts["invert"] = min(frames, INVERTED_FRAMES)
    seconds = {name: FRAME_SECONDS[name] * count for name, count in counts.items()}
    steps = {"refine": 200, "tune": 1500, "detail": 1000}
    if config.tune_steps is not None:
        most = config.tune_steps
        steps = {"refine": min(200, most), "tune": most, "detail": min(1000, most)}
    if config.tuning == "none":
        steps |= {"tune": 0, "detail": 0}
    seconds |= {name: STEP_SECONDS[name] * count for name, count in steps.items()}
    seconds["jacobian"] = JACOBIAN_SECONDS
    phases = (*PHASES, "check") if config.self_check else PHASES
    return {name: seconds[name] for name in phases}


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


class TotalBar(StageBar):
    """One bar over all stages, with the stage's name and the time left; plain lines in a file.
    `expected` has seconds by phase, in order."""

    def __init__(self, expected: dict[str, float], *, is_quiet: bool = False) -> None:
        super().__init__(is_quiet=is_quiet)
        self.expected = expected
        self._shares = dict.fromkeys(expected, 0.0)
        self._skipped = 0.0  # work of an earlier run
        self._started = time.monotonic()
        self._told = -SECONDS_BETWEEN_LINES

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Take note of `done` of `total` units of a stage, and show it."""
        if self.is_quiet or stage not in self.expected:
            return
        is_new = stage != self._stage
        self._note(stage, min(1.0, done / total) if total else 0.0, is_new=is_new)
        self._stage = stage
        now = time.monotonic()
        units = f"{done}/{total}" if total else f"{done}"
        text = f"{clock(self.seconds_left(now - self._started))} left"
        if self.is_screen:
            self._draw_share(f"{stage} {units}", text)
        elif is_new or self.share == 1 or now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            print(f"{stage} {units}, {self.share:.0%} of all, {text}", file=sys.stderr, flush=True)

    @property
    def share(self) -> float:
        """Work done of all work, 0 to 1."""
        return self._work / max(sum(self.expected.values()), 1e-9)

    @property
    def _work(self) -> float:
        return sum(self.expected[name] * share for name, share in self._shares.items())

    def _note(self, stage: str, share: float, *, is_new: bool) -> None:
        before = self._work
        if is_new:  # stages that said nothing were done by an earlier run
            for name in list(self.expected)[: list(self.expected).index(stage)]:
                if self._shares[name] == 0:
                    self._shares[name] = 1.0
            if self._shares[stage] == 0:
                self._shares[stage] = share
            self._skipped += self._work - before
        self._shares[stage] = max(self._shares[stage], share)

    def seconds_left(self, elapsed_seconds: float) -> float:
        """Return the time left after some time: the estimate, corrected by the speed so far."""
        work = self._work - self._skipped
        left = sum(self.expected.values()) - self._work
        return left * (elapsed_seconds / work if work >= LEAST_SECONDS else 1.0)

    def _draw_share(self, stage: str, left: str) -> None:
        if self._progress is None:
            from rich import progress as parts

            self._progress = open_bar(
                parts.BarColumn(bar_width=24),
                parts.TaskProgressColumn(),
                parts.TextColumn("{task.description}", markup=False),
                parts.TextColumn("{task.fields[left]}", markup=False),
            )
            self._task = self._progress.add_task(stage, total=1.0, left=left)
        self._progress.update(self._task, completed=self.share, description=stage, left=left)


@app.command()
def encode_command(
    source: Annotated[
        Path, typer.Argument(help="A video with one person's face; - reads standard input.")
    ],
    target: Annotated[
        Path | None,
        typer.Argument(help="The .sglat file to write; with --list-faces the contact sheet."),
    ] = None,
    bundle: Annotated[str, typer.Option(help="Name or folder of the weights.")] = "mini",
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
    identity_bytes: Annotated[
        int, typer.Option(min=2048, help="Most bytes for the person's look.")
    ] = 64_000,
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
        Literal["frame", "inverted"],
        typer.Option("--target", help="Match the camera's frame or its inversion."),
    ] = "frame",
    tuning: Annotated[
        Literal["manifold", "pivotal", "none"],
        typer.Option(help="How the generator is tuned to the person."),
    ] = "manifold",
    tune_steps: Annotated[
        int | None, typer.Option(min=1, help="Tuning steps; fewer are faster and worse.")
    ] = None,
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
    consent: Annotated[
        str, typer.Option(help="The pictured person's statement of consent, kept in the file.")
    ] = "",
    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda or mps; cuda and mps are untested on hardware."),
    ] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    workfile: Annotated[
        Path | None, typer.Option(help="Folder for unfinished work; default: beside the output.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue unfinished work.")
    ] = True,
    self_check: Annotated[
        bool, typer.Option("--self-check/--no-self-check", help="Decode the result and measure it.")
    ] = True,
    similarity_plot: Annotated[
        Path | None, typer.Option(help="Write identity similarity over time as SVG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
) -> None:
    """Encode a video. After an interruption the same command continues."""
    from sglat.encoder.analysis import clip_of
    from sglat.encoder.config import EncodeConfig
    from sglat.encoder.encode import encode
    from sglat.encoder.workfile import default_workfile
    from sglat.media.reader import VideoReader

    if list_faces:
        sheet = sheet_path(source, target)
        refuse_existing(sheet, force=force, inputs=(source,))
        print_faces(source, sheet, bundle, parse_time(start) or 0.0, parse_time(end), as_json)
        return
    if target is None:
        raise typer.BadParameter("expected the .sglat file to write")
    if like is not None and face != 1:
        raise UsageError("bad-options", "--face and --like contradict each other")
    check_output(source, target, force=force)
    work = workfile or default_workfile(target)
    config = EncodeConfig(
        bundle=bundle,
        face=face,
        like=like,
        quality=quality,
        motion_bits=motion_bits,
        identity_bytes=identity_bytes,
        resolution=resolution,
        solver=solver,
        target=target_picture,
        tuning=tuning,
        tune_steps=tune_steps,
        tune_frames=tune_frames,
        plate=plate,
        start_seconds=parse_time(start) or 0.0,
        end_seconds=parse_time(end),
        audio=audio,
        consent=consent,
        seed=seed,
        workfile=work,
        resume=resume,
        device=device,
        self_check=self_check,
        threads=threads or None,
        similarity_plot=similarity_plot,
        force=force,
    )
    bar = TotalBar({}, is_quiet=True)
    try:
        with video_source(source, beside=target) as video:
            with VideoReader(clip_of(video, config)) as reader:  # refused before anything is loaded
                frames = reader.info.expected_frames
            expected = expected_seconds(frames, config)
            if not quiet and frames:
                total = clock(sum(expected.values()))
                say(f"{frames} frames take about {total} on one core, and less if work is resumed")
            bar = TotalBar(expected, is_quiet=quiet)
            result = encode(video, target, config, progress=bar)
    except KeyboardInterrupt:
        bar.close()
        say(f"stopped; unfinished work is kept in {work}, the same command goes on from there")
        raise typer.Exit(130) from None
    bar.close()
    record = result.to_json()
    for line in result.messages:
        say(line)
    if as_json:
        print(json.dumps(record))
        return
    say(
        f"{target}: {target.stat().st_size} bytes, {result.frames} frames, "
        f"motion {record['kbit_per_second_motion']} kbit/s, "
        f"{record['seconds_per_frame']} s a frame"
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
