"""`sgl-play`, its server, and pages by `sgl-decode`."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sglat.bundles.bundle import load_bundle
from sglat.player.page import page_of_file
from sglat.player.serve import PageServer
from tests.player.looks import look_file
from tests.support.commands import run_here, status_of


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small file of the embedded bundle."""
    path = tmp_path_factory.mktemp("play") / "a.sglat"
    path.write_bytes(look_file(load_bundle("mini"), frames=2, resolution=128))
    return path


@pytest.fixture
def server() -> Iterator[PageServer]:
    """Return a running server."""
    server = PageServer("<p>page</p>")
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.stop()
    thread.join()
    server.close()


def answer(server: PageServer, path: str, host: str) -> tuple[int, bytes]:
    """Return status and body of a request under a name of this address."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    response = connection.getresponse()
    return response.status, response.read()


def test_the_page_is_served_to_this_machine_alone(server: PageServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert answer(server, "/", f"127.0.0.1:{server.port}") == (200, b"<p>page</p>")
    assert answer(server, "/?renderer=cpu", f"localhost:{server.port}")[0] == 200
    assert answer(server, "/", "example.org:80")[0] == 403
    assert answer(server, "/etc/passwd", f"127.0.0.1:{server.port}")[0] == 404


def test_a_taken_port_is_named(
    server: PageServer, source: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    done = run_here(capfdbinary, "play", source, "--no-browser", "--port", server.port)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: bad-port: ")


def test_decode_writes_a_page_once(
    source: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    out = tmp_path / "a.html"
    assert run_here(capfdbinary, "decode", source, out).returncode == 0
    page = out.read_bytes()
    assert 1_000_000 < len(page) < 20_000_000
    again = run_here(capfdbinary, "decode", source, out)
    assert (again.returncode, again.stderr.split()[1]) == (2, b"output-exists:")
    assert out.read_bytes() == page
    assert status_of("decode", source, out, "--force", "--json") == 0


def test_options_that_a_page_has_no_use_for_are_refused(
    source: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    done = run_here(capfdbinary, "decode", source, tmp_path / "a.html", "--size", "128")
    assert done.returncode == 2
    assert b"size" in done.stderr
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize("command", ["play", "decode"])
def test_what_is_no_file_of_ours_is_told_at_once(
    command: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    other = tmp_path / "other.sglat"
    other.write_bytes(b"plain text")
    outputs = [tmp_path / "a.html"] if command == "decode" else []
    done = run_here(capfdbinary, command, other, *outputs)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: bad-signature: ")
    assert not (tmp_path / "a.html").exists()


def test_an_identity_in_another_file_goes_into_the_page(source: Path, tmp_path: Path) -> None:
    alone, look = tmp_path / "motion.sglat", tmp_path / "look.sglat"
    assert status_of("swap", "--motion", source, alone, "--identity-file", look) == 0
    with alone.open("rb") as file:
        beside = page_of_file(file, "motion.sglat")
    with source.open("rb") as file:
        whole = page_of_file(file, "motion.sglat")
    assert abs(len(beside) - len(whole)) < 2000  # the look is in it
    with alone.open("rb") as file:
        assert page_of_file(file, "motion.sglat", identity_file=look) == beside
