"""`sgl-info` as people and programs use it."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from sglat.bitstream.info import describe
from sglat.bitstream.reader import open_reader
from sglat.cli.info import info, parse, table
from sglat.errors import FormatError, UsageError
from tests.bitstream.samples import sample_file
from tests.support.shared import REPOSITORY
from tests.support.tolerances import STARTUP_NUMPY_RATIO, STARTUP_SECONDS

SCHEMA = json.loads((REPOSITORY / "format_spec" / "info.schema.json").read_text())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.sglat"
    path.write_bytes(sample_file())
    return path


def run(*arguments: object) -> int:
    return info(parse([str(argument) for argument in arguments]))


def launched(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the real command in a fresh process."""
    command = [sys.executable, "-m", "sglat.cli.info", *map(str, arguments)]
    environment = {"PYTHONPATH": str(REPOSITORY / "codec"), "PATH": ""}
    return subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)


def test_the_table_names_what_matters(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(clip) == 0
    shown = capsys.readouterr().out
    for words in ("40 frames", "layer 2", "opus", "yes, I agree", "complete   yes"):
        assert words in shown


@pytest.mark.parametrize("is_variable", [False, True])
def test_json_follows_the_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_variable: bool
) -> None:
    path = tmp_path / "a.sglat"
    path.write_bytes(sample_file(is_variable=is_variable))
    assert run(path, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, SCHEMA)
    assert record["motion"]["frames"] == 40


def test_json_of_a_cut_file_follows_the_schema_too(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip.write_bytes(clip.read_bytes()[:-30])
    assert run(clip, "--json") == 1
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, SCHEMA)
    assert record["error"]["code"] == "truncated"


def test_json_may_be_verified(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(clip, "--json", "--verify") == 0
    assert json.loads(capsys.readouterr().out)["is_verified"] is True


def test_verify_prints_the_motion_hash(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(clip, "--verify") == 0
    with open_reader(clip) as reader:
        list(reader.groups())
        assert reader.end is not None
        assert reader.end.motion_sha256.hex() in capsys.readouterr().out


def test_verify_refuses_damage(clip: Path) -> None:
    data = bytearray(clip.read_bytes())
    data[len(data) // 2] ^= 4
    clip.write_bytes(bytes(data))
    with pytest.raises(FormatError):
        run(clip, "--verify")


def test_salvage_writes_a_whole_file(clip: Path, tmp_path: Path) -> None:
    clip.write_bytes(clip.read_bytes()[:-40])
    out = tmp_path / "out.sglat"
    assert run(clip, "--salvage", out) == 0
    with open_reader(out) as reader:
        assert len(reader.read_motion().values) == 40


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
@pytest.mark.parametrize("is_variable", [False, True])
def test_exported_motion_comes_back_exactly(tmp_path: Path, suffix: str, is_variable: bool) -> None:
    from sglat.bitstream.motion_table import load_table

    data = sample_file(is_variable=is_variable)
    path, table = tmp_path / "a.sglat", tmp_path / f"motion{suffix}"
    path.write_bytes(data)
    assert run(path, "--export", table) == 0
    with open_reader(path) as reader:
        groups = reader.read_all()
    values = np.concatenate([group.motion.values for group in groups])
    places = [group.placement.values for group in groups if group.placement is not None]
    found = load_table(table)
    assert np.array_equal(found.motion.values, values)
    assert found.placement is not None
    assert np.array_equal(found.placement.values, np.concatenate(places))


def test_an_export_needs_a_known_ending(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bad-suffix"):
        run(clip, "--export", tmp_path / "motion.xls")


@pytest.mark.parametrize("option", ["--export", "--salvage"])
def test_the_file_itself_is_never_replaced(clip: Path, tmp_path: Path, option: str) -> None:
    before, link = clip.read_bytes(), tmp_path / "motion.csv"
    link.hardlink_to(clip)
    with pytest.raises(UsageError, match="same-file"):
        run(clip, option, link, "--force")
    assert clip.read_bytes() == before


def test_an_existing_export_is_kept(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "motion.csv"
    out.write_text("mine")
    with pytest.raises(UsageError, match="output-exists"):
        run(clip, "--export", out)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("line", [0, 1, 3, 4])
def test_a_broken_table_gets_one_clear_error(clip: Path, tmp_path: Path, line: int) -> None:
    from sglat.bitstream.motion_table import load_table

    out = tmp_path / "motion.csv"
    run(clip, "--export", out)
    lines = out.read_text().splitlines()
    lines[line] = "nonsense,1,2"
    out.write_text("\n".join(lines))
    with pytest.raises(FormatError, match="bad-field"):
        load_table(out)


@pytest.mark.parametrize("name", ["a.csv", "a.h5"])
@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe\x00", b"# sglat-motion time_base=1/0 frame_ticks=1"]
)
def test_nonsense_is_no_table(tmp_path: Path, name: str, data: bytes) -> None:
    from sglat.bitstream.motion_table import load_table

    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FormatError, match="bad-field"):
        load_table(path)


def test_a_folder_in_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    result = launched(tmp_path)
    assert result.returncode == 2
    assert result.stderr.count(b"\n") == 1


def test_control_characters_of_a_file_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    from sglat.bitstream.records import IdentityReference
    from sglat.bitstream.writer import Writer
    from tests.bitstream.samples import sample_header

    out = io.BytesIO()
    writer = Writer(out, sample_header())
    writer.put_identity_reference(IdentityReference(sha256=bytes(32), hint="a\x1b[31mb"))
    writer.put_metadata({"title": "\x1b]0;evil\x07"})
    writer.close()
    path = tmp_path / "evil.sglat"
    path.write_bytes(out.getvalue())
    run(path)
    assert "\x1b" not in capsys.readouterr().out


def test_a_real_run_reads_a_pipe(clip: Path) -> None:
    result = launched("-", stdin=clip.read_bytes())
    assert result.returncode == 0
    assert b"40 frames" in result.stdout


def test_a_real_run_ends_an_error_with_one_line_and_status_one(clip: Path) -> None:
    clip.write_bytes(b"GIF89a" + clip.read_bytes())
    result = launched(clip)
    assert result.returncode == 1
    assert result.stdout == b""
    assert result.stderr.decode() == (
        f"error: bad-signature: {clip}: expected an .sglat file, found a GIF picture (at byte 0)\n"
    )
    assert result.stderr.count(b"\n") == 1


def test_a_real_run_ends_wrong_usage_with_status_two(tmp_path: Path) -> None:
    assert launched(tmp_path / "none.sglat").returncode == 2
    assert launched("--nonsense").returncode == 2


def test_neither_torch_nor_typer_is_loaded(clip: Path) -> None:
    code = (
        "import sys; sys.argv[1:] = [%r]\n"
        "from sglat.cli.info import info, parse\n"
        "info(parse()); print(sorted({'torch', 'typer', 'cv2', 'rich'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(REPOSITORY / "codec"), "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", code % str(clip)], capture_output=True, env=environment, check=True
    )
    assert result.stdout.splitlines()[-1] == b"[]"


def least_seconds(*arguments: object) -> float:
    """Return the least time of some runs of Python, by the clock or by the processor."""

    def cpu_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    environment = {"PYTHONPATH": str(REPOSITORY / "codec"), "PATH": ""}
    command = [sys.executable, *map(str, arguments)]
    taken = []
    for _ in range(4):  # the first run may compile
        before, started = cpu_seconds(), time.monotonic()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        taken.append(min(cpu_seconds() - before, time.monotonic() - started))
    return min(taken)


@pytest.mark.parametrize("what", ["import sglat", "sgl-info"])
def test_it_starts_fast(clip: Path, what: str) -> None:
    """On a busy machine everything takes longer, so numpy alone is timed beside it."""
    is_import = what == "import sglat"
    seconds = least_seconds(*(["-c", what] if is_import else ["-m", "sglat.cli.info", clip]))
    limit = max(STARTUP_SECONDS, STARTUP_NUMPY_RATIO * least_seconds("-c", "import numpy"))
    assert seconds < limit


def test_the_resolutions_of_a_file_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A vector of 256 px with a layer of that resolution, and its JSON by the schema."""
    vector = REPOSITORY / "format_spec" / "vectors" / "valid" / "upper-layers.sglat"
    assert run(vector) == 0
    shown = capsys.readouterr().out
    assert "256 px" in shown.splitlines()[1]
    assert "layer 1  weights up to 128 px" in shown
    assert "layer 2  weights up to 256 px" in shown
    assert run(vector, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, SCHEMA)
    assert [layer["resolution"] for layer in record["identity"]["layers"]] == [None, 128, 256]


def test_the_source_s_face_is_shown() -> None:
    record = describe(io.BytesIO(sample_file()))
    assert "source     640x480\n" in table(record)
    record["settings"]["face_pixels"] = "433"
    assert "source     640x480, face crop 433 px\n" in table(record)
