"""Lists and folders: what is taken, and what is wrong with a list."""

from __future__ import annotations

import sys
from pathlib import Path

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from sglat.batch.inputs import local_copy, read_inputs, signature
from sglat.errors import MissingExtraError, UsageError

VIDEOS = frozenset({".mp4", ".mkv"})


def names(source: object, folder: Path) -> list[tuple[str, str]]:
    """Return file names and output names of what is read."""
    found = read_inputs(str(source), VIDEOS, skipped=folder / "out")
    return [(Path(entry.source).name, entry.name) for entry in found]


def test_a_folder_gives_its_videos_with_their_folders_but_no_hidden_and_no_outputs(
    tmp_path: Path,
) -> None:
    for name in ("b.mp4", "a/c.MKV", "notes.txt", ".hidden.mp4", ".git/d.mp4", "out/e.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path, tmp_path) == [("c.MKV", "a/c"), ("b.mp4", "b")]


def test_a_text_list_has_a_path_a_line_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeff# ours\n\nsub/a.mp4\n  b c.mp4  \n")
    found = read_inputs(str(tmp_path / "list.txt"), VIDEOS, skipped=tmp_path / "out")
    assert [entry.source for entry in found] == [
        str(tmp_path / "sub/a.mp4"), str(tmp_path / "b c.mp4"),
    ]  # fmt: skip


@pytest.mark.parametrize(("suffix", "comma"), [(".csv", ","), (".tsv", "\t")])
def test_a_table_may_name_the_outputs(tmp_path: Path, suffix: str, comma: str) -> None:
    rows = [["speaker", "input", "output"], ["x", "a/t.mp4", "one/t"], ["y", "b/t.mp4", ""]]
    path = tmp_path / f"list{suffix}"
    path.write_text("\n".join(comma.join(row) for row in rows))
    assert names(path, tmp_path) == [("t.mp4", "one/t"), ("t.mp4", "t")]


def test_parquet_is_read_like_a_table(tmp_path: Path) -> None:
    table = pyarrow.table({"output": [None, "two"], "input": ["a.mp4", "b.mp4"], "n": [1, 2]})
    parquet.write_table(table, tmp_path / "list.parquet")
    assert names(tmp_path / "list.parquet", tmp_path) == [("a.mp4", "a"), ("b.mp4", "two")]


BAD = {
    "list.csv": (b"path,output\na.mp4,a\n", "list-columns"),
    "empty.csv": (b"", "list-columns"),
    "head.csv": (b"input,output\n", "empty-list"),
    "empty.txt": (b"# nothing\n\n", "empty-list"),
    "quotes.csv": (b'input\n"a.mp4\n', "list-damaged"),
    "latin.txt": (b"caf\xe9.mp4\n", "list-damaged"),
    "list.parquet": (b"not parquet at all", "list-damaged"),
    "clip.mp4": (b"\0\0\0\x18ftypmp42", "list-kind"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_list_is_one_line(tmp_path: Path, name: str) -> None:
    data, code = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_inputs(str(tmp_path / name), VIDEOS, skipped=tmp_path / "out")
    assert caught.value.code == code
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.txt", "memory://nowhere/list.txt"])
def test_a_missing_list_is_named(tmp_path: Path, name: str) -> None:
    source = name if "://" in name else str(tmp_path / name)
    with pytest.raises(UsageError, match="input-missing"):
        read_inputs(source, VIDEOS, skipped=tmp_path / "out")


def test_an_address_gives_files_of_a_folder_and_of_a_list_in_it() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/in/a.mp4": b"1", "/in/sub/b.mp4": b"22", "/in/list.txt": b"sub/b.mp4\n"})
    folder = read_inputs("memory://in", VIDEOS, skipped=Path("out"))
    listed = read_inputs("memory://in/list.txt", VIDEOS, skipped=Path("out"))
    assert [(e.source, e.name) for e in folder] == [
        ("memory://in/a.mp4", "a"), ("memory://in/sub/b.mp4", "sub/b"),
    ]  # fmt: skip
    assert listed[0].source == "memory://in/sub/b.mp4"
    assert signature(listed[0].source) == (2, None)


def test_files_behind_an_address_are_copied_for_the_time_of_the_work(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    with local_copy(f"file://{tmp_path}/a.mp4", tmp_path / "out.sglat") as path:
        assert path.read_bytes() == b"abc" and path.suffix == ".mp4"
        assert path != tmp_path / "a.mp4"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_local_list_needs_no_fsspec_and_an_address_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    (tmp_path / "list.txt").write_text("a.mp4\n")
    assert names(tmp_path / "list.txt", tmp_path) == [("a.mp4", "a")]
    with pytest.raises(MissingExtraError, match=r"sglat\[batch\]"):
        read_inputs("s3://bucket/list.txt", VIDEOS, skipped=tmp_path / "out")
