"""A person of a tiny bundle, as both ends of a call hold one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from sglat.bundles.bundle import Bundle
from sglat.live.look import Look, read_look
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import write_file


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="session")
def person(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """Return a file with one person and some motion."""
    path = Path(tmp_path_factory.mktemp("person")) / "person.sglat"
    return write_file(path, bundle, frames=12, consent="mine")


@pytest.fixture(scope="session")
def look(person: Path) -> Look:
    return read_look(person, Fraction(50))


@pytest.fixture(scope="session")
def other_look(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Look:
    path = Path(tmp_path_factory.mktemp("other")) / "other.sglat"
    return read_look(write_file(path, bundle, frames=2, seed=5), Fraction(50))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep identities out of the user's cache."""
    home = tmp_path / "home"
    monkeypatch.setenv("SGLAT_HOME", str(home))
    return home
