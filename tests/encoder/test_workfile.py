"""The work file: nothing half-written is ever seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sglat.encoder.workfile import Store, WorkFile, check_apart, remove_work
from sglat.errors import UsageError, WorkFileError


def rows(start: int, count: int) -> dict[str, np.ndarray]:
    return {"value": np.arange(start, start + count), "pair": np.full((count, 2), start)}


def open_store(folder: Path, key: str = "k", *, source: str = "a") -> Store:
    return WorkFile(folder, source=source).open("track", key)


def test_appended_rows_are_there_after_reopening(tmp_path: Path) -> None:
    store = open_store(tmp_path / "w")
    store.append(rows(0, 3))
    store.append(rows(3, 4))
    assert open_store(tmp_path / "w").read("value").tolist() == list(range(7))


def test_a_slice_crosses_parts(tmp_path: Path) -> None:
    store = open_store(tmp_path / "w")
    for start in range(0, 12, 3):
        store.append(rows(start, 3))
    assert store.read("value", 2, 8).tolist() == [2, 3, 4, 5, 6, 7]


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    store = open_store(tmp_path / "w")
    for start in range(0, 60, 3):
        store.append(rows(start, 3))
    wanted = [59, 0, 31, 31, 7]
    assert store.read_rows("value", wanted).tolist() == wanted


def test_rows_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    store = open_store(tmp_path / "w")
    store.append(rows(0, 3))
    with pytest.raises(WorkFileError, match="work-missing"):
        store.read_rows("value", [1, 3])


def test_results_and_facts_come_back(tmp_path: Path) -> None:
    open_store(tmp_path / "w").finish({"ws": np.eye(2)}, {"frame": 7})
    arrays, facts = open_store(tmp_path / "w").result()
    assert np.array_equal(arrays["ws"], np.eye(2))
    assert facts == {"frame": 7}


def test_a_checkpoint_is_replaced_and_goes_when_the_work_is_done(tmp_path: Path) -> None:
    store = open_store(tmp_path / "w")
    store.save_checkpoint({"x": np.zeros(1)}, {"step": 1})
    store.save_checkpoint({"x": np.ones(1)}, {"step": 2})
    loaded = open_store(tmp_path / "w").load_checkpoint()
    assert loaded is not None and loaded[1] == {"step": 2}
    store.finish()
    assert store.load_checkpoint() is None


def test_another_key_deletes_what_is_stored(tmp_path: Path) -> None:
    open_store(tmp_path / "w", "k").append(rows(0, 3))
    assert open_store(tmp_path / "w", "other").rows == 0


def test_another_name_is_kept(tmp_path: Path) -> None:
    work = WorkFile(tmp_path / "w", source="a")
    work.open("track", "k").append(rows(0, 3))
    work.open("align", "other")
    assert work.open("track", "k").rows == 3


def test_another_input_is_one_clear_line(tmp_path: Path) -> None:
    open_store(tmp_path / "w", source="a")
    with pytest.raises(WorkFileError, match="work-other-input"):
        open_store(tmp_path / "w", source="b")


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
@pytest.mark.parametrize("use", [remove_work, lambda folder: WorkFile(folder, source="a")])
def test_a_folder_of_other_things_is_left_alone(
    tmp_path: Path, make: Callable[[Path], None], use: Callable[[Path], object]
) -> None:
    make(tmp_path / "holidays")
    with pytest.raises(WorkFileError, match="not-a-work-file"):
        use(tmp_path)
    assert (tmp_path / "holidays").exists()


def test_a_work_file_that_was_being_made_is_continued(tmp_path: Path) -> None:
    (tmp_path / ".source.77.partial.json").touch()
    assert open_store(tmp_path).rows == 0


def test_a_file_in_the_place_of_the_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "w").touch()
    with pytest.raises(WorkFileError, match="not-a-work-file"):
        WorkFile(tmp_path / "w", source="a")


def test_a_work_file_holds_no_input_or_output(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bad-workfile"):
        check_apart(tmp_path, [None, tmp_path / "videos" / "out.sglat"])
    check_apart(tmp_path / "w", [None, tmp_path / "out.sglat"])


def test_a_damaged_part_is_one_clear_line(tmp_path: Path) -> None:
    open_store(tmp_path / "w").append(rows(0, 3))
    part = next((tmp_path / "w" / "track").glob("rows-*.h5"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(WorkFileError, match="work-damaged"):
        open_store(tmp_path / "w").read("value")


def test_a_lost_part_is_one_clear_line(tmp_path: Path) -> None:
    store = open_store(tmp_path / "w")
    store.append(rows(0, 3))
    store.append(rows(3, 3))
    next((tmp_path / "w" / "track").glob("rows-00000000*.h5")).unlink()
    with pytest.raises(WorkFileError, match="work-damaged"):
        open_store(tmp_path / "w")


def test_half_written_parts_are_swept_away(tmp_path: Path) -> None:
    store = open_store(tmp_path / "w")
    (tmp_path / "w" / "track" / ".rows-00000000-00000003.77.partial.h5").write_bytes(b"half")
    assert open_store(tmp_path / "w").rows == store.rows == 0
    assert not list((tmp_path / "w" / "track").glob("*.partial*"))


KILLED = """
import sys
from pathlib import Path
import numpy as np
from sglat.encoder.workfile import WorkFile
store = WorkFile(Path(sys.argv[1]), source="a").open("track", "k")
print("ready", flush=True)
while True:
    start = store.rows
    store.append({"value": np.arange(start, start + 5), "bulk": np.zeros((5, 4000))})
"""


@pytest.mark.parametrize("pause_seconds", [0.01, 0.05, 0.13])
def test_kill_dash_nine_leaves_whole_parts(tmp_path: Path, pause_seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "w")],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None and process.stdout.readline()
    time.sleep(pause_seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = open_store(tmp_path / "w")
    if store.rows:
        assert store.read("value").tolist() == list(range(store.rows))
    store.append({"value": np.arange(store.rows, store.rows + 5), "bulk": np.zeros((5, 4000))})
