"""Downloads from a server on this machine: whole, cut, wrong, moved, refused, contested."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import random
import socket
import threading
import time
from pathlib import Path
from typing import IO, Any

import pytest

from sglat.bundles import download as module
from sglat.bundles.download import DownloadConfig, Expected, check_download, download
from sglat.errors import DownloadError
from tests.bundles.server import Behaviour, serve

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
EXPECTED = Expected(size_bytes=len(CONTENT), sha256=SHA256)
QUICK = DownloadConfig(pause_seconds=0.0, chunk_bytes=1 << 14, timeout_seconds=10)


def behaviour(**options: Any) -> Behaviour:
    return Behaviour(content=CONTENT, **options)


def fetch(address: str, target: Path, expected: Expected = EXPECTED, **options: Any) -> None:
    options.setdefault("config", QUICK)
    download([f"{address}/file"], target, expected, **options)


def refused(
    address: str, target: Path, expected: Expected = EXPECTED, **options: Any
) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        fetch(address, target, expected, **options)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    assert target.name in str(caught.value)
    return caught.value


def test_a_good_file_arrives(tmp_path: Path) -> None:
    with serve(behaviour()) as address:
        fetch(address, tmp_path / "sub" / "file.pt")
    assert (tmp_path / "sub" / "file.pt").read_bytes() == CONTENT
    assert not (tmp_path / "sub" / "file.pt.partial").exists()


def test_progress_ends_with_everything(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serve(behaviour()) as address:
        fetch(
            address, tmp_path / "file.pt", progress=lambda done, total: seen.append((done, total))
        )
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_a_file_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    server = behaviour()
    (tmp_path / "file.pt").write_bytes(CONTENT)
    with serve(server) as address:
        fetch(address, tmp_path / "file.pt")
    assert server.requests == []


def test_a_damaged_file_that_is_there_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(CONTENT[:-1] + b"x")
    with serve(behaviour()) as address:
        fetch(address, tmp_path / "file.pt")
    assert (tmp_path / "file.pt").read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_with_both_values(tmp_path: Path) -> None:
    server = Behaviour(content=CONTENT[:-1] + b"x")
    found = hashlib.sha256(server.content).hexdigest()
    with serve(server) as address:
        error = refused(address, tmp_path / "file.pt")
    assert error.code == "wrong-file"
    assert SHA256 in error.message and found in error.message and address in error.message
    assert not (tmp_path / "file.pt.partial").exists()


def test_a_cut_is_resumed_where_it_was(tmp_path: Path) -> None:
    server = behaviour(cuts=[100_000, 50_000])
    with serve(server) as address:
        fetch(address, tmp_path / "file.pt")
    assert (tmp_path / "file.pt").read_bytes() == CONTENT
    assert server.requests == ["whole", "bytes=100000-", "bytes=150000-"]
    assert server.sent_bytes == len(CONTENT)


def test_the_next_call_goes_on_after_the_last_one_gave_up(tmp_path: Path) -> None:
    server = behaviour(cuts=[100_000, 0])
    with serve(server) as address:
        once = DownloadConfig(pause_seconds=0, attempts=2)
        error = refused(address, tmp_path / "file.pt", config=once)
        assert error.code == "cut-off" and "100000" in error.message
        fetch(address, tmp_path / "file.pt")
    assert server.requests[-1] == "bytes=100000-"
    assert server.sent_bytes == len(CONTENT)


def test_a_server_without_ranges_sends_everything_again(tmp_path: Path) -> None:
    server = behaviour(cuts=[100_000], knows_ranges=False)
    with serve(server) as address:
        fetch(address, tmp_path / "file.pt")
    assert (tmp_path / "file.pt").read_bytes() == CONTENT


def test_the_start_of_another_version_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "file.pt.partial").write_bytes(b"old" * 1000)
    server = behaviour()
    with serve(server) as address:
        fetch(address, tmp_path / "file.pt")
    assert (tmp_path / "file.pt").read_bytes() == CONTENT
    assert server.requests == ["bytes=3000-", "whole"]


def test_a_partial_file_longer_than_the_file_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "file.pt.partial").write_bytes(CONTENT + b"more")
    server = behaviour()
    with serve(server) as address:
        fetch(address, tmp_path / "file.pt")
    assert server.requests == ["whole"]


def test_a_complete_partial_file_needs_no_request(tmp_path: Path) -> None:
    (tmp_path / "file.pt.partial").write_bytes(CONTENT)
    server = behaviour()
    with serve(server) as address:
        fetch(address, tmp_path / "file.pt")
    assert server.requests == []


def test_a_complete_partial_file_of_unknown_size_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file.pt.partial").write_bytes(CONTENT)
    server = behaviour()
    with serve(server) as address:
        fetch(address, tmp_path / "file.pt", Expected(sha256=SHA256))
    assert (tmp_path / "file.pt").read_bytes() == CONTENT
    assert server.sent_bytes == 0


def test_a_longer_partial_file_of_unknown_size_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "file.pt.partial").write_bytes(CONTENT + b"more")
    server = behaviour()
    with serve(server) as address:
        fetch(address, tmp_path / "file.pt", Expected(sha256=SHA256))
    assert server.requests == [f"bytes={len(CONTENT) + 4}-", "whole"]


def test_a_wrong_size_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    wrong = Expected(size_bytes=len(CONTENT) + 1, sha256=SHA256)
    with serve(behaviour()) as address:
        error = refused(address, tmp_path / "file.pt", wrong)
    assert error.code == "wrong-size"
    assert str(len(CONTENT)) in error.message and str(len(CONTENT) + 1) in error.message
    assert not (tmp_path / "file.pt.partial").exists()


def test_an_endless_answer_is_stopped_at_the_expected_size(tmp_path: Path) -> None:
    server = Behaviour(content=CONTENT * 3, names_length=False)
    with serve(server) as address:
        assert refused(address, tmp_path / "file.pt").code == "wrong-size"
    assert (tmp_path / "file.pt.partial").stat().st_size <= len(CONTENT)


def test_a_file_known_by_gits_hash_only_is_checked_by_it(tmp_path: Path) -> None:
    with serve(behaviour(names_length=False)) as address:
        fetch(address, tmp_path / "file.pt", Expected(git_blob_sha1=BLOB))
        wrong = Expected(git_blob_sha1="0" * 40)
        assert BLOB in refused(address, tmp_path / "other.pt", wrong).message


def test_a_redirect_is_followed(tmp_path: Path) -> None:
    server = behaviour()
    with serve(server) as address:
        server.redirect_to = f"{address}/file"
        download([f"{address}/moved"], tmp_path / "file.pt", EXPECTED, config=QUICK)
    assert (tmp_path / "file.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/file"])
def test_a_redirect_out_of_the_web_is_refused(tmp_path: Path, place: str) -> None:
    server = behaviour(redirect_to=place)
    with serve(server) as address, pytest.raises(DownloadError):
        download([f"{address}/moved"], tmp_path / "file.pt", EXPECTED, config=QUICK)
    assert not (tmp_path / "file.pt").exists()


def test_a_redirect_from_https_to_http_is_refused() -> None:
    import urllib.request

    request = urllib.request.Request("https://example.invalid/file")
    with pytest.raises(DownloadError, match="leads to http://"):
        module._CarefulRedirects().redirect_request(
            request, None, 302, "Found", {}, "http://example.invalid/file"
        )


def test_a_redirect_in_a_circle_ends(tmp_path: Path) -> None:
    server = behaviour(redirect_to="/moved")
    with serve(server) as address, pytest.raises(DownloadError):
        download([f"{address}/moved"], tmp_path / "file.pt", EXPECTED, config=QUICK)


def test_an_address_that_is_no_web_address_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="expected https"):
        download([source.as_uri()], tmp_path / "file.pt", EXPECTED)


def test_offline_never_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    error = refused(
        "http://127.0.0.1:9", tmp_path / "file.pt", config=DownloadConfig(is_offline=True)
    )
    assert error.code == "offline"
    (tmp_path / "file.pt").write_bytes(CONTENT)
    fetch("http://127.0.0.1:9", tmp_path / "file.pt", config=DownloadConfig(is_offline=True))


def test_nobody_at_the_address_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert refused(address, tmp_path / "file.pt").code == "cut-off"


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_not_repeated(tmp_path: Path, status: int) -> None:
    server = behaviour(statuses=[status])
    with serve(server) as address:
        error = refused(address, tmp_path / "file.pt")
    assert error.code == "refused" and str(status) in error.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(tmp_path: Path, status: int) -> None:
    server = behaviour(statuses=[status, status])
    with serve(server) as address:
        fetch(address, tmp_path / "file.pt")
    assert len(server.requests) == 3


def test_the_second_address_is_tried(tmp_path: Path) -> None:
    with serve(behaviour(statuses=[404])) as first, serve(behaviour()) as second:
        download([f"{first}/file", f"{second}/file"], tmp_path / "file.pt", EXPECTED, config=QUICK)
    assert (tmp_path / "file.pt").read_bytes() == CONTENT


def test_without_space_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda _: 1000)
    server = behaviour()
    with serve(server) as address:
        error = refused(address, tmp_path / "file.pt")
    assert error.code == "no-space" and "1000" in error.message
    assert not (tmp_path / "file.pt.partial").exists()


def test_a_disk_that_fills_up_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullFile:
        def __init__(self, file: IO[bytes]) -> None:
            self.file = file

        def __enter__(self) -> FullFile:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    real = Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = real(path, mode, *args, **options)
        return FullFile(file) if path.name.endswith(".partial") and "b" in mode else file

    monkeypatch.setattr(Path, "open", opened)
    with serve(behaviour()) as address:
        error = refused(address, tmp_path / "file.pt")
    assert error.code == "no-space" and "No space left" in error.message


def _fetch_in_process(address: str, target: Path, barrier: Any) -> None:
    barrier.wait(30)
    fetch(address, target)


def test_two_processes_fetch_a_file_once(tmp_path: Path) -> None:
    server = behaviour(delay=threading.Event())
    context = multiprocessing.get_context("fork")
    target = tmp_path / "file.pt"
    barrier = context.Barrier(3)
    with serve(server) as address:
        workers = [
            context.Process(target=_fetch_in_process, args=(address, target, barrier))
            for _ in range(2)
        ]
        for worker in workers:
            worker.start()
        barrier.wait(30)
        time.sleep(0.5)  # the answer waits; time for the second process to ask, if it would
        assert server.delay is not None
        server.delay.set()
        for worker in workers:
            worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert server.requests == ["whole"]
    assert target.read_bytes() == CONTENT


def test_a_lock_that_is_never_released_is_one_line(tmp_path: Path) -> None:
    from filelock import FileLock

    impatient = DownloadConfig(lock_seconds=0.1)
    with FileLock(tmp_path / "file.pt.lock"):
        assert (
            refused("http://127.0.0.1:9", tmp_path / "file.pt", config=impatient).code == "locked"
        )


def test_a_file_brought_by_hand_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(CONTENT)
    check_download(path, EXPECTED, name="file.pt")
    with pytest.raises(DownloadError, match=SHA256):
        check_download(path, Expected(sha256="0" * 64), name="file.pt")
