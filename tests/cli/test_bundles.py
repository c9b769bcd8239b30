"""`sgl-bundles` end to end against a server on this machine: status, output, what lies where."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

import sglat
from sglat.bundles.bundle import load_bundle
from sglat.bundles.catalogue import BUNDLES, CatalogueFile
from sglat.bundles.store import FetchConfig, fetch_bundle
from sglat.cli import bundles
from sglat.errors import BundleMismatchError
from tests.bundles.tiny import add_upper_layers, make_tiny_bundle
from tests.bundles.toys import (
    catalogue_file,
    toy_bundle,
    toy_generator,
    write_toy_flow,
    write_toy_generator,
)
from tests.support.files import write_file

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command and return status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sgl-bundles", *map(str, arguments)])
        status = 0
        try:
            bundles.main()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def requests() -> list[str]:
    """What the server was asked for."""
    return []


@pytest.fixture
def files(tmp_path: Path, requests: list[str]) -> Iterator[tuple[CatalogueFile, CatalogueFile]]:
    """Two published files on a server, and the bundle `toy` made of them."""
    offered = tmp_path / "offered"
    offered.mkdir()
    generator = write_toy_generator(offered / "generator.pt")
    flow = write_toy_flow(offered / "flow.pt")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(offered))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            requests.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    yield catalogue_file(generator, address), catalogue_file(flow, address)
    server.shutdown()
    server.server_close()


@pytest.fixture
def toy(
    files: tuple[CatalogueFile, CatalogueFile], monkeypatch: pytest.MonkeyPatch
) -> tuple[CatalogueFile, CatalogueFile]:
    monkeypatch.setitem(BUNDLES, "toy", toy_bundle(*files))
    return files


def listed(call: Call) -> dict[str, dict[str, object]]:
    return {record["name"]: record for record in json.loads(call("list", "--json")[1])}


@pytest.mark.usefixtures("toy")
def test_fetch_downloads_checks_and_converts(call: Call, home: Path) -> None:
    status, out, err = call("fetch", "toy", "--accept-licence")
    assert status == 0, err
    assert Path(out.strip()) == home / "bundles" / "toy"
    bundle = load_bundle("toy")
    assert set(bundle.manifest.parts) == {"generator", "pose_flow"}
    own = toy_generator().state_dict()
    loaded = bundle.generator.state_dict()
    assert all(torch.equal(loaded[name], own[name]) for name in own)
    assert listed(call)["toy"]["state"] == "complete"
    assert [p.name for p in (home / "downloads").iterdir() if p.suffix == ".pt"] == []


@pytest.mark.usefixtures("toy")
def test_licences_are_shown_and_must_be_accepted_once(call: Call, home: Path) -> None:
    status, out, err = call("fetch", "toy")
    assert status == 1 and out == ""
    assert "BSD-3-Clause" in err and "generator.pt" in err
    assert err.splitlines()[-1].startswith("error: licence:")
    assert not (home / "bundles").exists()
    assert call("fetch", "toy", "--accept-licence")[0] == 0
    assert call("remove", "toy", "--yes")[0] == 0
    status, _, err = call("fetch", "toy")
    assert status == 0
    assert "https://" not in err  # not shown again


@pytest.mark.usefixtures("toy")
def test_the_originals_are_kept_on_request(call: Call, home: Path) -> None:
    assert call("fetch", "toy", "--accept-licence", "--keep-downloads")[0] == 0
    assert (home / "downloads" / "generator.pt").exists()


@pytest.mark.usefixtures("toy")
def test_offline_says_what_is_missing_and_uses_what_is_here(call: Call, home: Path) -> None:
    status, _, err = call("fetch", "toy", "--accept-licence", "--offline")
    assert status == 1
    assert err.splitlines()[-1] == "error: incomplete: toy: 2 of 2 files are missing"
    assert "generator.pt is not here; it would be at http://" in err
    call("fetch", "toy")
    assert call("fetch", "toy", "--offline")[0] == 0


def _fetch_in_process(queue: Any) -> None:
    state = fetch_bundle("toy", FetchConfig(licence_accepted=True))
    queue.put((os.getpid(), state.missing_files))


@pytest.mark.usefixtures("toy")
def test_two_processes_fetch_a_bundle_once(requests: list[str]) -> None:
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    workers = [context.Process(target=_fetch_in_process, args=(queue,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert [missing for _, missing in results] == [(), ()]
    assert sorted(requests) == ["/flow.pt", "/generator.pt"]
    load_bundle("toy").verify()


def test_one_bad_file_does_not_stop_the_others(
    call: Call, files: tuple[CatalogueFile, CatalogueFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, flow = files
    broken = CatalogueFile(**{**generator.__dict__, "sha256": "0" * 64})
    monkeypatch.setitem(BUNDLES, "toy", toy_bundle(broken, flow))
    status, _, err = call("fetch", "toy", "--accept-licence")
    assert status == 1
    assert f"expected sha256 {'0' * 64}, found {generator.sha256}" in err.splitlines()[-1]
    assert listed(call)["toy"]["missing_files"] == ["generator.pt"]
    monkeypatch.setitem(BUNDLES, "toy", toy_bundle(generator, flow))
    assert call("fetch", "toy")[0] == 0


def test_a_file_without_a_direct_address_is_asked_for_and_imported(
    call: Call,
    files: tuple[CatalogueFile, CatalogueFile],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    generator, flow = files
    drive = "https://drive.example/file/d/abc/view"
    by_hand = CatalogueFile(**{**generator.__dict__, "addresses": (), "by_hand": drive})
    monkeypatch.setitem(BUNDLES, "toy", toy_bundle(by_hand, flow))
    status, _, err = call("fetch", "toy", "--accept-licence")
    assert status == 1
    last = err.splitlines()[-1]
    assert drive in last and "sgl-bundles import generator.pt" in last
    assert str(generator.size_bytes) in last and str(generator.sha256) in last
    renamed = (tmp_path / "offered" / "generator.pt").rename(tmp_path / "from browser (1).pt")
    status, _, err = call("import", renamed)
    assert status == 0, err
    assert listed(call)["toy"]["state"] == "complete"


@pytest.mark.usefixtures("toy")
def test_importing_a_published_file_needs_its_licence(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "offered" / "generator.pt"
    status, _, err = call("import", path)
    assert status == 1 and "BSD-3-Clause" in err
    status, _, err = call("import", path, "--accept-licence")
    assert status == 0
    assert "still missing: flow.pt" in err


@pytest.mark.usefixtures("toy")
def test_a_published_name_with_other_content_is_refused(call: Call, tmp_path: Path) -> None:
    path = write_toy_generator(tmp_path / "generator.pt", seed=1)
    path.write_bytes(path.read_bytes() + b"x")
    status, _, err = call("import", path)
    assert status == 1
    assert "generator.pt: expected" in err and "found" in err and len(err.splitlines()) == 1


def test_an_own_checkpoint_is_imported_verified_and_removed(call: Call, tmp_path: Path) -> None:
    path = write_toy_generator(tmp_path / "my.pt")
    status, out, err = call("import", path, "--name", "mine")
    assert status == 0, err
    folder = Path(out.strip())
    assert sorted(p.name for p in folder.iterdir()) == ["generator.safetensors", "manifest.json"]
    assert call("path", "mine")[1].strip() == str(folder)
    assert listed(call)["mine"]["state"] == "complete"
    status, out, _ = call("verify", "mine")
    assert status == 0 and out.startswith("mine: 1 files right")
    status, _, err = call("remove", "mine", "--yes")
    assert status == 0 and not folder.exists()


def test_a_checkpoint_of_ones_own_needs_a_name(call: Call, tmp_path: Path) -> None:
    status, _, err = call("import", write_toy_generator(tmp_path / "my.pt"))
    assert status == 1 and "--name" in err and len(err.splitlines()) == 1


def test_a_hostile_checkpoint_is_one_line(call: Call, tmp_path: Path, home: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x02cos\nsystem\nU\x05falsetR.")
    status, out, err = call("import", path, "--name", "mine")
    assert (status, out) == (1, "")
    assert (
        err == f"error: forbidden-name: {path}: the file wants 'os.system', which no weights need\n"
    )
    assert not (home / "bundles").exists()


def test_verify_names_the_damaged_file(call: Call, home: Path) -> None:
    make_tiny_bundle(home / "bundles" / "tiny")
    assert call("verify")[1].count("files right") >= 1
    path = home / "bundles" / "tiny" / "pose_flow.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    status, _, err = call("verify", "tiny")
    assert status == 1
    assert str(path) in err and "expected sha256" in err and len(err.splitlines()) == 1


def test_the_table_has_a_line_for_every_bundle(call: Call, home: Path) -> None:
    tiny = make_tiny_bundle(home / "bundles" / "tiny")
    lines = call("list")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["mini", *BUNDLES, "tiny"]
    assert tiny.decoder_id.hex()[:16] in lines[-1]


def test_the_files_of_a_published_bundle_are_shown(call: Call) -> None:
    shown = call("list", "ffhq")[1]
    for file in BUNDLES["ffhq"].files:
        assert f"name: {file.name}" in shown
        assert all(f"  addresses: {address}" in shown for address in file.addresses)
    records = json.loads(call("list", "ffhq", "--json")[1])
    assert [record["sha256"] for record in records] == [f.sha256 for f in BUNDLES["ffhq"].files]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["list", "nothing"], 1, "unknown-bundle"),
        (["fetch", "nothing"], 1, "unknown-bundle"),
        (["path", "nothing"], 1, "sgl-bundles fetch"),
        (["verify", "nothing"], 1, "unknown-bundle"),
        (["remove", "nothing", "--yes"], 1, "unknown-bundle"),
        (["remove", "../..", "--yes"], 1, "unknown-bundle"),
        (["remove", "mini", "--yes"], 2, "cannot be removed"),
        (["import", "/nowhere.pt"], 2, "there is no such file"),
        (["import", "/nowhere.pt", "--name", "mine"], 2, "there is no such file"),
        (["import", __file__, "--name", "Bad Name"], 2, "bad-name"),
        (["import", __file__, "--name", "ffhq"], 2, "published"),
        (["import", __file__, "--name", "mine"], 1, "expected a torch file"),
        (["frobnicate"], 2, "No such command"),
        (["fetch"], 2, "Missing argument"),
    ],
)
def test_bad_input_has_its_status_and_says_why(
    call: Call, arguments: list[str], status: int, words: str
) -> None:
    found, out, err = call(*arguments)
    assert found == status
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_a_kept_version_decodes_its_files_when_a_release_brings_other_weights(
    call: Call, home: Path, tmp_path: Path
) -> None:
    folder = home / "bundles" / "tiny"
    make_tiny_bundle(folder)
    bundle = add_upper_layers(folder)
    files = [write_file(tmp_path / f"{size}.sglat", bundle.at(size), frames=3) for size in (16, 64)]
    before = [picture_of(path) for path in files]
    status, out, _ = call("keep", "tiny")
    kept = Path(out.strip())
    assert status == 0 and kept.parent == folder.parent and kept.name.startswith("tiny.")
    assert call("keep", "tiny")[1] == out  # once is enough
    assert kept.name in call("list")[1]
    shutil.rmtree(folder)
    make_tiny_bundle(folder, seed=7)
    (home / "bundles" / "tiny.damaged").mkdir()
    (home / "bundles" / "tiny.damaged" / "manifest.json").write_text("{")
    for path, wanted in zip(files, before, strict=True):
        np.testing.assert_array_equal(picture_of(path), wanted)
    shutil.rmtree(kept)
    with pytest.raises(BundleMismatchError, match="loaded is 'tiny'"):
        picture_of(files[0])


def picture_of(path: Path) -> np.ndarray:
    return next(iter(sglat.decode(path))).picture
