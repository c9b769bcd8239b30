"""`sgl-swap` as people use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sglat.bitstream.motion_table import TABLE_NOTE
from sglat.bitstream.origins import NO_CONSENT
from sglat.bitstream.reader import open_reader
from sglat.marks.provenance import Provenances, read_provenance
from tests.bitstream.samples import sample_file
from tests.bundles.tiny import make_tiny_bundle
from tests.support.commands import status_of
from tests.support.files import write_file
from tests.support.shared import REPOSITORY


@pytest.fixture
def one(tmp_path: Path) -> Path:
    path = tmp_path / "one.sglat"
    path.write_bytes(sample_file(seed=1))
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.sglat"
    path.write_bytes(sample_file(seed=2, frames=20))
    return path


def swap(*arguments: object) -> int:
    """Run the command in this process; return the exit status."""
    from sglat.cli import swap as module

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(sys, "argv", ["sgl-swap", *map(str, arguments)])
        module.main()
    return int(caught.value.code or 0)


def motion_of(path: Path) -> np.ndarray:
    with open_reader(path) as reader:
        return reader.read_motion().values


def test_swap_joins_motion_and_look(one: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.sglat"
    assert swap("--motion", one, "--identity", other, out) == 0
    with open_reader(out) as found, open_reader(other) as expected:
        assert found.identity_sha256 == expected.identity_sha256
    assert np.array_equal(motion_of(out), motion_of(one))


def test_swap_shows_the_consent_it_keeps(
    one: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swap("--motion", one, "--identity", other, tmp_path / "out.sglat")
    assert "consent: yes, I agree" in capsys.readouterr().err


def test_two_motions_are_joined_and_trimmed(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.sglat"
    assert swap("--motion", one, "--motion", one, "--trim", "0:1.5", out) == 0
    assert np.array_equal(motion_of(out), np.concatenate([motion_of(one)] * 2)[:45])


def test_a_join_names_the_file_that_it_changed(
    one: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert swap("--motion", one, "--motion", other, tmp_path / "out.sglat") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{other}: made by another encoding (whether it shows the person of")
    assert f"{other}: its motion is quantized again, with an error (rms) of 0.0" in lines[1]
    assert lines[2].startswith(f"{tmp_path / 'out.sglat'}: 60 frames, 2.00 s")


@pytest.mark.parametrize(
    ("cosine", "said"),
    [(0.9, "another encoding; its motion"), (0.1, "and of another person than {one} (similarity")],
)
def test_a_join_of_two_people_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cosine: float, said: str
) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    one = write_file(tmp_path / "a.sglat", bundle, seed=1)
    other = write_file(tmp_path / "b.sglat", bundle, seed=2)
    vectors = iter([torch.tensor([[1.0, 0.0]]), torch.tensor([[cosine, (1 - cosine**2) ** 0.5]])])
    shown: list[torch.Tensor] = []

    def embed(pictures: torch.Tensor) -> torch.Tensor:
        shown.append(pictures)
        return next(vectors)

    bundle.__dict__["faces"] = SimpleNamespace(embed=embed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sglat.bundles.bundle.load_bundle", lambda name, device="cpu": bundle)
        assert swap("--motion", one, "--motion", other, tmp_path / "out.sglat") == 0
    assert said.format(one=one) in capsys.readouterr().err.splitlines()[0]
    assert [tuple(picture.shape) for picture in shown] == [(1, 3, 16, 16)] * 2
    assert not torch.equal(*shown)


def test_more_layers_than_there_are_is_wrong_usage(one: Path, tmp_path: Path) -> None:
    assert swap("--motion", one, "--layers", 9, tmp_path / "out.sglat") == 2
    assert not (tmp_path / "out.sglat").exists()


def test_layers_strip_and_identity_file_work_together(one: Path, tmp_path: Path) -> None:
    out, person = tmp_path / "out.sglat", tmp_path / "person.sglat"
    assert swap("--motion", one, "--layers", 1, "--strip", "--identity-file", person, out) == 0
    with open_reader(out) as reader, open_reader(person) as alone:
        assert reader.identity_reference is not None
        assert reader.identity_reference.sha256 == alone.identity_sha256
        assert reader.metadata == {}
        assert alone.identity is not None
        assert len(alone.identity.layers) == 1


def test_attach_puts_the_identity_back(one: Path, tmp_path: Path) -> None:
    out, person, again = (tmp_path / f"{name}.sglat" for name in ("out", "person", "again"))
    swap("--motion", one, "--identity-file", person, out)
    assert swap("--motion", out, "--identity", person, "--attach", again) == 0
    with open_reader(again) as found, open_reader(one) as expected:
        assert found.identity_sha256 == expected.identity_sha256


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
def test_edited_motion_gets_a_look(one: Path, other: Path, tmp_path: Path, suffix: str) -> None:
    from sglat.cli.info import info, parse

    table, out = tmp_path / f"motion{suffix}", tmp_path / "out.sglat"
    info(parse([str(one), "--export", str(table)]))
    assert swap("--motion", table, "--identity", other, out) == 0
    assert np.array_equal(motion_of(out), motion_of(one))


def test_an_existing_file_is_kept_without_force(one: Path, other: Path) -> None:
    before = other.read_bytes()
    assert swap("--motion", one, other) == 2
    assert other.read_bytes() == before


def test_force_replaces_it(one: Path, other: Path) -> None:
    assert swap("--motion", one, "--force", other) == 0
    assert np.array_equal(motion_of(other), motion_of(one))


@pytest.mark.parametrize("replaced", ["motion", "identity", "link", "twice"])
def test_an_input_is_never_replaced(
    one: Path, other: Path, tmp_path: Path, replaced: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = one.read_bytes(), other.read_bytes()
    out = {"motion": one, "identity": other}.get(replaced, tmp_path / "out.sglat")
    if replaced == "link":
        out.hardlink_to(other)
    options = ["--identity-file", out] if replaced == "twice" else []
    assert swap("--motion", one, "--identity", other, "--force", *options, out) == 2
    assert "same-file" in capsys.readouterr().err
    assert (one.read_bytes(), other.read_bytes()) == before


def test_other_decoders_are_refused_in_one_line_and_nothing_is_written(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(sample_file(seed=3))
    at = data.index(bytes(range(32)))
    data[at] ^= 1
    from sglat.bitstream.chunks import crc32c

    length = int.from_bytes(data[13:16], "little")
    data[16 + length : 20 + length] = crc32c(bytes(data[8 : 16 + length])).to_bytes(4, "little")
    foreign, out = tmp_path / "foreign.sglat", tmp_path / "out.sglat"
    foreign.write_bytes(bytes(data))
    assert swap("--motion", one, "--identity", foreign, out) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: decoder-mismatch: ")
    assert message.count("\n") == 1
    assert not out.exists()


def test_a_damaged_motion_leaves_no_half_written_file(one: Path, tmp_path: Path) -> None:
    one.write_bytes(one.read_bytes()[:-5])
    out = tmp_path / "out.sglat"
    assert swap("--motion", one, out) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.sglat"]


@pytest.mark.parametrize("span", ["500:", "2:1", "a:b", "1/0:2"])
def test_a_span_that_makes_no_sense_is_wrong_usage(one: Path, tmp_path: Path, span: str) -> None:
    assert swap("--motion", one, "--trim", span, tmp_path / "out.sglat") == 2


def test_the_launcher_works_from_a_checkout(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.sglat"
    result = subprocess.run(
        [REPOSITORY / "bin" / "sgl-swap", "--motion", one, out],
        env={"SGLAT_PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert out.exists()


def record_of(path: Path) -> Provenances:
    with path.open("rb") as file:
        return read_provenance(file)


@pytest.mark.parametrize("consent", ["", "yes"])
def test_a_join_of_two_looks_records_that_consent_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], consent: str
) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    one = write_file(tmp_path / "a.sglat", bundle, seed=1, consent=consent)
    other = write_file(tmp_path / "b.sglat", bundle, seed=2, consent="mine")
    swap("--motion", one, "--motion", other, tmp_path / "out.sglat")
    assert ("warning: no consent" in capsys.readouterr().err) == (consent == "")
    found = record_of(tmp_path / "out.sglat")
    assert found.record is not None
    assert (found.record.consent, NO_CONSENT in found.record.note) == (consent, consent == "")
    assert len(found.origins) == 2
    swap("--motion", one, "--motion", one, tmp_path / "same.sglat")
    same = record_of(tmp_path / "same.sglat").record
    assert same is not None and same.note == ""


def test_motion_of_a_table_is_not_said_to_be_of_the_look_it_is_put_on(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    look = write_file(tmp_path / "a.sglat", bundle, consent="mine")
    table = tmp_path / "m.csv"
    assert status_of("info", look, "--export", table) == 0
    assert swap("--motion", table, "--identity", look, tmp_path / "out.sglat") == 0
    found = record_of(tmp_path / "out.sglat")
    assert found.record is not None and found.record.consent == "mine"
    (origin,) = found.origins
    assert origin.record is not None
    assert (origin.role, origin.record.consent, origin.record.note) == ("motion", "", TABLE_NOTE)
