"""Outputs appear whole or not at all, and never take another's place unasked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sglat.errors import UsageError
from sglat.files import (
    AtomicOutput,
    atomic_file,
    check_input,
    hash_file,
    name_beside,
    open_input,
    output_lock,
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


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_an_input_is_never_replaced(
    tmp_path: Path, link: Callable[[Path, Path], None] | None
) -> None:
    source, output = tmp_path / "a.mp4", tmp_path / "b.mp4"
    source.write_bytes(b"the only copy")
    if link is None:
        output = tmp_path / "." / "a.mp4"
    else:
        link(source, output)
    action = lambda: refuse_existing(output, force=True, inputs=[None, source])  # noqa: E731
    assert code_of(action) == "same-file"


def test_a_folder_with_an_input_in_it_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "face.png").touch()
    action = lambda: refuse_existing(  # noqa: E731
        tmp_path / "frames", force=True, is_folder=True, inputs=[tmp_path / "frames" / "face.png"]
    )
    assert code_of(action) == "same-file"


def test_another_file_may_be_replaced(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    refuse_existing(tmp_path / "a", force=True, inputs=[tmp_path / "b", tmp_path / "missing"])


@pytest.mark.parametrize("stem", ["a" * 249, "\u00e9" * 124])
def test_the_longest_name_can_be_written(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.sglat"
    with atomic_file(path) as file:
        file.write(b"whole")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 300)
    assert code_of(lambda: refuse_existing(path, force=False)) == "output-name"


def test_names_beside_a_long_name_differ_by_the_name(tmp_path: Path) -> None:
    long = ["a" * 250 + end for end in ("b", "c")]
    names = {name_beside(tmp_path / name, ".work").name for name in long}
    assert len(names) == 2
    assert max(map(len, names)) <= 255
    assert name_beside(tmp_path / "a.sglat", ".work").name == "a.sglat.work"


def test_one_output_is_made_by_one_process_at_a_time(tmp_path: Path) -> None:
    code = f"""
from sglat.files import output_lock
with output_lock({str(tmp_path / "out")!r}):
    print("mine", flush=True)
"""
    with output_lock(tmp_path / "out"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "output-busy" in done.stderr
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "mine\n"
    assert list(tmp_path.iterdir()) == []
