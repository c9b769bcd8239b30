"""One fault, one code, one text and one exit status, whichever command meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sglat import api
from sglat.bitstream.reader import open_reader
from sglat.bitstream.writer import open_writer
from sglat.bundles.bundle import Bundle
from sglat.encoder.config import EncodeConfig
from sglat.errors import UsageError
from tests.bitstream.samples import sample_header
from tests.bundles.tiny import make_tiny_bundle
from tests.support.commands import status_of
from tests.support.files import write_file
from tests.support.video import moving_square, write_video

Arguments = Callable[[Path, str], tuple[object, ...]]
"""From a folder with `in.mp4`, `in.sglat`, `mini` and the path at fault to a command line."""

WRITING: dict[str, Arguments] = {
    "encode": lambda at, out: ("encode", at / "in.mp4", out),
    "encode --similarity-plot": lambda at, out: (
        "encode", at / "in.mp4", at / "new.sglat", "--quiet", "--similarity-plot", out,
    ),
    "decode": lambda at, out: ("decode", at / "in.sglat", out, "--bundle", at / "mini"),
    "decode --png": lambda at, out: (
        "decode", at / "in.sglat", out, "--png", "--bundle", at / "mini",
    ),
    "swap": lambda at, out: ("swap", "--motion", at / "in.sglat", out),
    "swap --identity-file": lambda at, out: (
        "swap", "--motion", at / "in.sglat", at / "new.sglat", "--identity-file", out,
    ),
    "info --salvage": lambda at, out: ("info", at / "in.sglat", "--salvage", out),
    "info --export": lambda at, out: ("info", at / "in.sglat", "--export", out),
}  # fmt: skip

READING: dict[str, Arguments] = {
    "encode": lambda at, path: ("encode", path, at / "new.sglat"),
    "encode --like": lambda at, path: (
        "encode", at / "in.mp4", at / "new.sglat", "--quiet", "--like", path,
    ),
    "decode": lambda at, path: ("decode", path, at / "new.mp4", "--bundle", at / "mini"),
    "decode --onto": lambda at, path: (
        "decode", at / "in.sglat", at / "new.mp4", "--onto", path, "--bundle", at / "mini",
    ),
    "decode --onto picture": lambda at, path: (
        "decode", at / "in.sglat", at / "new.mp4", "--onto", path, "--bundle", at / "mini",
    ),
    "decode --identity-file": lambda at, path: (
        "decode", at / "motion.sglat", at / "new.mp4", "--identity-file", path,
        "--bundle", at / "mini",
    ),
    "swap --motion": lambda at, path: ("swap", "--motion", path, at / "new.sglat"),
    "swap --motion table": lambda at, path: (
        "swap", "--motion", path, "--identity", at / "in.sglat", at / "new.sglat",
    ),
    "swap --identity": lambda at, path: (
        "swap", "--motion", at / "in.sglat", "--identity", path, at / "new.sglat",
    ),
    "info": lambda at, path: ("info", path),
    "info --salvage": lambda at, path: ("info", path, "--salvage", at / "new.sglat"),
    "bundles import": lambda at, path: ("bundles", "import", path),
}  # fmt: skip
NAMES = {"decode --onto picture": "none.png", "swap --motion table": "none.csv"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Path:
    (tmp_path / "mini").symlink_to(bundle.folder)
    write_video(tmp_path / "in.mp4", [moving_square(i) for i in range(3)])
    write_file(tmp_path / "in.sglat", bundle, frames=6)
    assert status_of("swap", "--motion", tmp_path / "in.sglat", tmp_path / "motion.sglat",
                     "--identity-file", tmp_path / "look.sglat") == 0  # fmt: skip
    return tmp_path


def fault(capture: pytest.CaptureFixture[str], arguments: tuple[object, ...]) -> tuple[int, str]:
    """Return status and standard error of a command that fails without other output."""
    capture.readouterr()
    status = status_of(*arguments)
    shown = capture.readouterr()
    assert shown.out == ""
    return status, shown.err


@pytest.mark.parametrize("command", WRITING)
def test_an_existing_output_is_one_fault(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    out = folder / "out.csv"
    out.write_bytes(b"mine")
    expected = f"error: output-exists: {out} exists; use --force to replace it\n"
    assert fault(capsys, WRITING[command](folder, str(out))) == (2, expected)
    assert out.read_bytes() == b"mine"
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("command", WRITING)
def test_an_output_in_a_missing_folder_is_one_fault(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    expected = f"error: output-folder: expected a folder {folder / 'no'}, found none\n"
    found = fault(capsys, WRITING[command](folder, str(folder / "no" / "out.csv")))
    assert found == (2, expected)


@pytest.mark.parametrize("command", sorted(WRITING.keys() - {"decode --png"}))
def test_a_folder_in_the_place_of_an_output_is_one_fault(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    out = folder / "out.csv"
    out.mkdir()
    found = fault(capsys, (*WRITING[command](folder, str(out)), "--force"))
    assert found == (2, f"error: output-exists: {out} is a folder\n")


@pytest.mark.parametrize("name", ["in.mp4", "new.sglat"])
def test_a_plot_replaces_neither_input_nor_output(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    video = (folder / "in.mp4").read_bytes()
    options = ("--quiet", "--force", "--similarity-plot", folder / name)
    status, line = fault(capsys, ("encode", folder / "in.mp4", folder / "new.sglat", *options))
    assert (status, line.split(":")[1]) == (2, " same-file")
    assert (folder / "in.mp4").read_bytes() == video


@pytest.mark.parametrize("consent", ["yes" * 30_000, "caf\udce9"])
def test_a_statement_that_no_file_holds_is_refused_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], consent: str
) -> None:
    arguments = ("encode", folder / "in.mp4", folder / "new.sglat", "--quiet", "--consent", consent)
    status, line = fault(capsys, arguments)
    assert (status, line.split(":")[1]) == (2, " bad-consent")


def test_a_folder_of_other_things_is_not_replaced_by_pictures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    album = folder / "album"
    album.mkdir()
    (album / "00001.png").touch()
    (album / "holiday.png").touch()
    status, line = fault(capsys, (*WRITING["decode --png"](folder, str(album)), "--force"))
    assert (status, "found holiday.png in" in line) == (2, True)
    assert (album / "holiday.png").exists()


@pytest.mark.parametrize("command", READING)
def test_a_missing_input_is_one_fault(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    path = folder / NAMES.get(command, "none.sglat")
    expected = f"error: input-missing: cannot read {path}: there is no such file\n"
    assert fault(capsys, READING[command](folder, str(path))) == (2, expected)


@pytest.mark.parametrize("command", READING)
def test_a_folder_as_input_is_one_fault(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    path = folder / NAMES.get(command, "none.sglat")
    path.mkdir()
    expected = f"error: input-unreadable: cannot read {path}: it is a folder\n"
    assert fault(capsys, READING[command](folder, str(path))) == (2, expected)


def test_the_library_has_the_same_codes(folder: Path) -> None:
    def code_of(action: Callable[[], object]) -> str:
        with pytest.raises(UsageError) as caught:
            action()
        return caught.value.code

    old, none, new = folder / "in.sglat", folder / "none.sglat", folder / "new.sglat"
    exists = [
        lambda: api.encode(folder / "in.mp4", old),
        lambda: api.swap(motion=folder / "motion.sglat", identity=folder / "look.sglat", out=old),
        lambda: open_writer(old, sample_header()).__enter__(),
    ]
    missing = [
        lambda: api.encode(none, new),
        lambda: next(api.decode(none)),
        lambda: api.open(none).__enter__(),
        lambda: api.swap(motion=none, identity=old, out=new),
        lambda: open_reader(none).__enter__(),
    ]
    assert {code_of(action) for action in exists} == {"output-exists"}
    assert {code_of(action) for action in missing} == {"input-missing"}


def test_the_older_name_of_force_is_understood() -> None:
    assert EncodeConfig(is_forced=True) == EncodeConfig(force=True)
