"""The collected inputs of earlier fuzzing still end in a clean read or a clean refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import fuzz_payloads, fuzz_reader

HERE = Path(__file__).resolve().parent


def inputs(folder: str) -> list[Path]:
    return sorted(path for path in (HERE / folder).iterdir() if path.is_file())


def test_corpus_is_there() -> None:
    assert len(inputs("corpus")) > 100
    assert len(inputs("corpus_payloads")) > 100


@pytest.mark.parametrize("part", range(8))
def test_files_of_the_corpus_are_read_or_refused(part: int) -> None:
    for path in inputs("corpus")[part::8]:
        data = path.read_bytes()
        frames = fuzz_reader.read_codec(data)
        fuzz_reader.check_other_ways(data, frames)
        fuzz_reader.compare(data, frames)


@pytest.mark.parametrize("part", range(4))
def test_payloads_of_the_corpus_are_read_or_refused(part: int) -> None:
    for path in inputs("corpus_payloads")[part::4]:
        fuzz_payloads.check(path.read_bytes())
