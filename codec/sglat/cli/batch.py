"""`sgl-batch`: encode, decode or check many files, on this machine or by Ray.

What is done is left out when the same command runs again; each file has a line in `results.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from sglat.cli import decode as decoding
from sglat.cli import encode as encoding
from sglat.cli import options
from sglat.cli.common import StageBar, new_app, run, say
from sglat.cli.estimate import clock
from sglat.cli.passed import with_options_of
from sglat.errors import UsageError
from sglat.files import output_lock

if TYPE_CHECKING:
    from sglat.batch.engine import Engine
    from sglat.batch.run import Summary
    from sglat.batch.work import Work

app = new_app(
    "Many files by one command; after an interruption it continues.", has_subcommands=True
)

Files = Annotated[
    str,
    typer.Argument(
        metavar="LIST|FOLDER",
        help="A folder, or a list: .txt with a path a line, .csv, .tsv or .parquet with the "
        "columns input and perhaps output. Paths may be addresses such as s3://bucket/clip.mp4.",
    ),
]
OutDir = Annotated[Path, typer.Option(help="Folder of the outputs and of results.jsonl.")]
Jobs = Annotated[
    int, typer.Option(min=0, help="Files at a time; 0: one for each processor, memory allowing.")
]
Shard = Annotated[str, typer.Option(metavar="I/N", help="Do every N-th file, from the I-th on.")]
EngineName = Annotated[
    Literal["local", "ray"], typer.Option(help="Processes of this machine, or tasks of Ray.")
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster; default: one of this machine for this run.")
]
Retry = Annotated[
    bool, typer.Option("--retry", help="Try again inputs that failed by their own fault.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no line a failure.")]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace outputs made with other settings or by other programs."),
]
ONE_FILE: Final = frozenset({"source", "target", "as_json", "quiet", "force"})
"""Parameters of other commands that are about their one file, or that this command has itself."""


def encode_many(
    files: Files,
    out_dir: OutDir,
    jobs: Jobs = 0,
    shard: Shard = "",
    engine: EngineName = "local",
    address: Address = None,
    retry: Retry = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    force: Force = False,
    **passed: Any,
) -> None:
    """Encode videos; all further options are those of sgl-encode."""
    from sglat.batch.work import EncodeWork
    from sglat.bundles.bundle import load_bundle
    from sglat.encoder.config import check_choices
    from sglat.encoder.needs import needs_of
    from sglat.encoder.write import check_consent
    from sglat.files import check_input

    signer, notes = options.chosen_signer(
        passed["sign"], passed["sign_cert"], passed["sign_key"], is_media=False
    )
    config = encoding.config_of(passed, out_dir / "any.sglat")
    check_choices(config)
    check_consent(config.consent)
    for path in (config.identity, config.like):
        if path is not None:
            check_input(path)
    needs = needs_of(load_bundle(config.bundle), config)
    most = max(1, (needs.available_bytes or needs.memory_bytes) // needs.memory_bytes)
    run_many(
        dict(locals()),
        lambda threads: EncodeWork(config=_with(config, threads=threads), signer=signer),
        notes, most=most,
    )  # fmt: skip


def decode_many(
    files: Files,
    out_dir: OutDir,
    container: Annotated[str, typer.Option(help="Suffix of the videos: .mp4, .mkv, ...")] = ".mp4",
    jobs: Jobs = 0,
    shard: Shard = "",
    engine: EngineName = "local",
    address: Address = None,
    retry: Retry = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    force: Force = False,
    **passed: Any,
) -> None:
    """Decode files to videos; all further options are those of sgl-decode."""
    from sglat.batch.work import DecodeWork
    from sglat.decoder.output import check_output
    from sglat.files import check_input

    ending = "." + container.lower().lstrip(".")
    chosen = passed | {"target": out_dir / f".any{ending}", "force": True}
    config, output, notes = decoding.configs_of(chosen)
    if out_dir.is_dir():
        check_output(output)
    if passed["identity_file"] is not None:
        check_input(passed["identity_file"])
    run_many(
        dict(locals()),
        lambda threads: DecodeWork(
            config=config, output=_with(output, threads=threads), container=ending,
            bundle=passed["bundle"], identity_file=passed["identity_file"], threads=threads,
        ),
        notes,
    )  # fmt: skip


def check_many(
    files: Files,
    out_dir: OutDir,
    jobs: Jobs = 0,
    shard: Shard = "",
    engine: EngineName = "local",
    address: Address = None,
    retry: Retry = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Read .sglat files from end to end: are they whole, and are their weights here?"""
    from sglat.batch.work import CheckWork

    run_many(dict(locals()) | {"passed": {"threads": 1}}, lambda threads: CheckWork(), [])


app.command("encode")(
    with_options_of(
        encode_many, encoding.encode_command,
        left_out=ONE_FILE | {"list_faces", "all_faces", "similarity_plot", "workfile"},
    )
)  # fmt: skip
app.command("decode")(
    with_options_of(
        decode_many, decoding.decode_command,
        left_out=ONE_FILE | {"raw", "png", "onto", "track", "face", "audio"},
    )
)  # fmt: skip
app.command("check")(check_many)


def run_many(
    chosen: Mapping[str, Any], make: Callable[[int], Work], notes: list[str], *, most: int = 1 << 16
) -> None:
    """Run a batch and end with its status: 0 if all files are done, 1 if some failed.

    Args:
        chosen: values of a command's parameters.
        make: returns the work, given the threads of one file.
        notes: lines for the user.
        most: files at a time that memory allows.
    """
    from sglat.batch.engine import processor_count
    from sglat.batch.inputs import VIDEO_SUFFIXES, read_inputs
    from sglat.batch.plan import make_jobs, parse_shard
    from sglat.batch.results import Results, results_path
    from sglat.batch.run import Summary, run_batch

    part, folder = parse_shard(chosen["shard"]), Path(chosen["out_dir"])
    if chosen["address"] is not None and chosen["engine"] != "ray":
        raise UsageError("bad-options", "--address needs --engine ray")
    processors = processor_count()
    workers = chosen["jobs"] or max(1, min(processors, most))
    threads = chosen["passed"]["threads"] or max(1, processors // workers)
    work = make(threads)
    suffixes = VIDEO_SUFFIXES if work.command == "encode" else frozenset({".sglat"})
    entries = read_inputs(chosen["files"], suffixes, skipped=folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = results_path(folder, part)
    told = _Told(workers, is_quiet=chosen["quiet"])
    with output_lock(path):
        jobs, repeated = make_jobs(entries, folder, work, part)
        if repeated:
            notes = [*notes, f"{repeated} files are named again in the list, and done once"]
        for note in notes:
            say(note)
        summary = Summary(files=len(jobs))
        try:
            run_batch(
                jobs, Results(folder, path), _engine(chosen, workers, threads),
                is_forced=chosen["force"], is_retried=chosen["retry"], progress=told,
                summary=summary,
            )  # fmt: skip
        except KeyboardInterrupt:
            told.close()
            left = summary.files - summary.ended
            say(f"stopped; {summary.ended} of {summary.files} files are done or have failed, "
                f"{left} are left; the same command goes on from there")  # fmt: skip
            raise typer.Exit(130) from None
    told.close()
    _report(summary, path, as_json=chosen["as_json"])


def _report(summary: Summary, path: Path, *, as_json: bool) -> None:
    """Print the summary; end with status 1 where a file failed."""
    if as_json:
        print(json.dumps(summary.to_json()))
    else:
        codes = ", ".join(f"{count} {code}" for code, count in sorted(summary.codes.items()))
        say(
            f"{path}: {summary.files} files, {summary.made} made in {clock(summary.seconds)}, "
            f"{summary.already} done before, {summary.failed} failed"
            f"{f' ({codes})' if codes else ''}, {summary.size_bytes} bytes"
        )
    if summary.unwritten:
        say(f"error: file: {path}: no room for {summary.unwritten} lines; is the disk full?")
    if summary.failed or summary.unwritten:
        raise typer.Exit(1)


class _Told:
    """Lines of failures, one bar over all files, and a time plan after the first of them."""

    def __init__(self, workers: int, *, is_quiet: bool) -> None:
        self.workers, self.is_quiet = workers, is_quiet
        self.bar = StageBar(is_quiet=is_quiet)
        self._is_planned = False

    def __call__(self, summary: Summary, record: Mapping[str, Any] | None) -> None:
        """Take note of a line."""
        if self.is_quiet:
            return
        if record is None:
            if summary.already:
                say(f"{summary.already} of {summary.files} files are done already")
        elif record["status"] == "failed":
            self.bar.close()
            say(f"failed: {record['code']}: {record['input']}: {record['message']}")
        left = summary.seconds_left(self.workers)
        if not self._is_planned and left is not None and summary.made >= self.workers:
            self._is_planned = True
            if summary.ended < summary.files:
                one = summary.file_seconds / summary.made
                say(
                    f"plan: {one:.1f} s a file, {self.workers} at a time: "
                    f"{summary.files - summary.ended} files take about {clock(left)}"
                )
        self.bar("files", summary.ended, summary.files)

    def close(self) -> None:
        """End the bar."""
        self.bar.close()


def _engine(chosen: Mapping[str, Any], workers: int, threads: int) -> Engine:
    if chosen["engine"] == "ray":
        from sglat.batch.ray_engine import RayEngine

        return RayEngine(workers=workers, threads=threads, address=chosen["address"])
    from sglat.batch.engine import LocalEngine

    return LocalEngine(workers=workers, threads=threads)


def _with(config: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(config, **changes)


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
