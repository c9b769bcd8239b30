"""Outputs appear whole or not at all, and never take another's place unasked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sglat.errors import UsageError
from sglat.files import (
    AtomicOutput,
    atomic_file,
    check_input,
    hash_file,
    open_input,
    refuse_existing,
    write_atomically,
)


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as caught:
        action()
    return caught.value.code


def test_a_finished_output_has_its_name_alone(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.bin") as file:
        assert not (tmp_path / "a.bin").exists()
        file.write(b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.bin", b"new")]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_output_leaves_the_older_one(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(error), atomic_file(tmp_path / "a.bin", force=True) as file:
        file.write(b"half")
        raise error
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.bin", b"old")]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    with AtomicOutput(tmp_path / "a.mp4") as partial:
        partial.touch()
        assert (partial.parent, partial.suffix) == (tmp_path, ".mp4")


def test_an_output_folder_replaces_an_older_one_whole(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "old.png").touch()
    with AtomicOutput(tmp_path / "frames", force=True, is_folder=True) as partial:
        partial.mkdir()
        (partial / "new.png").touch()
    assert [p.name for p in (tmp_path / "frames").iterdir()] == ["new.png"]


def test_what_a_killed_process_left_is_not_continued(tmp_path: Path) -> None:
    output = AtomicOutput(tmp_path / "a.bin")
    output.partial.write_bytes(b"half")
    AtomicOutput(tmp_path / "a.bin")
    assert not output.partial.exists()


@pytest.mark.parametrize("is_folder", [False, True])
def test_an_existing_output_needs_force(tmp_path: Path, is_folder: bool) -> None:
    (tmp_path / "a").touch()
    code = code_of(lambda: refuse_existing(tmp_path / "a", force=False, is_folder=is_folder))
    assert code == "output-exists"
    refuse_existing(tmp_path / "a", force=True, is_folder=is_folder)


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    assert code_of(lambda: refuse_existing(tmp_path, force=True)) == "output-exists"


def test_a_missing_output_folder_is_refused(tmp_path: Path) -> None:
    action = lambda: refuse_existing(tmp_path / "no" / "a", force=True)  # noqa: E731
    assert code_of(action) == "output-folder"


@pytest.mark.parametrize("reading", [open_input, check_input, hash_file])
def test_missing_inputs_and_folders_have_codes(
    tmp_path: Path, reading: Callable[[Path], object]
) -> None:
    assert code_of(lambda: reading(tmp_path / "none")) == "input-missing"
    assert code_of(lambda: reading(tmp_path)) == "input-unreadable"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_checking_a_pipe_does_not_wait_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_input(tmp_path / "pipe")


def test_small_files_are_written_as_bytes_or_utf8(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "é", is_synced=True)
    write_atomically(tmp_path / "b", b"\xc3\xa9")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_hash_is_the_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a").startswith("ba7816bf8f01cfea")
