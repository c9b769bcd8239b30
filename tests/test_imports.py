"""The direction of imports between rooms, read from the source and seen in fresh interpreters."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "codec" / "sglat"

# What each room may import besides itself.
ALLOWED = {
    "errors": set(),
    "bitstream": {"errors"},
    "media": {"errors", "bitstream"},
    "networks": {"errors", "bitstream"},
    "bundles": {"errors", "bitstream", "networks"},
    "decoder": {"errors", "bitstream", "media", "networks", "bundles"},
    "encoder": {"errors", "bitstream", "media", "networks", "bundles", "decoder"},
}


def imported_rooms(path: Path) -> Iterator[str]:
    """Yield the rooms of sglat that a module imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "sglat" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("room", [room for room in ALLOWED if room != "errors"])
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    wrong = {
        f"{path.relative_to(SOURCE)} imports {other}"
        for path in (SOURCE / room).rglob("*.py")
        for other in imported_rooms(path)
        if other != room and other not in ALLOWED[room]
    }
    assert wrong == set()


def loaded_by(statement: str) -> set[str]:
    """Return the top-level packages and sglat's rooms that a fresh interpreter then holds."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "codec")},
    )
    names = done.stdout.split()
    return {n.split(".")[0] for n in names} | {n for n in names if n.startswith("sglat.")}


def test_importing_sglat_loads_neither_torch_nor_opencv() -> None:
    assert not {"torch", "cv2", "av", "numpy"} & loaded_by("import sglat")


def test_the_bitstream_never_loads_torch() -> None:
    statement = "import sglat.bitstream.reader, sglat.bitstream.writer, sglat.bitstream.edits"
    assert not {"torch", "cv2", "av"} & loaded_by(statement)


def test_the_decoder_loads_neither_the_encoder_nor_its_packages() -> None:
    loaded = loaded_by("import sglat.decoder.decode, sglat.decoder.output")
    assert not {"cv2", "insightface", "lpips", "h5py", "sglat.encoder"} & loaded
