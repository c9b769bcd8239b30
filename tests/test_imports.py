"""The direction of imports between rooms, read from the source and seen in fresh interpreters."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODEC = ROOT / "codec"

# Rooms of the product from the ground up, each with those below it that it may import.
PRODUCT: Final[dict[str, set[str]]] = {
    "errors": set(),
    "version": set(),
    "files": {"errors"},
    "bitstream": {"errors", "files"},
    "media": {"errors", "files", "bitstream"},
    "marks": {"errors", "files", "bitstream", "media", "version"},
    "networks": {"errors", "files", "bitstream"},
    "bundles": {"errors", "files", "bitstream", "networks"},
    "decoder": {
        "errors",
        "files",
        "bitstream",
        "media",
        "marks",
        "networks",
        "bundles",
        "version",
    },
    "encoder": {
        "errors",
        "files",
        "bitstream",
        "media",
        "marks",
        "networks",
        "bundles",
        "decoder",
        "version",
    },
    "player": {
        "errors",
        "files",
        "bitstream",
        "media",
        "marks",
        "networks",
        "bundles",
        "decoder",
        "version",
    },
    "live": {
        "errors",
        "files",
        "bitstream",
        "media",
        "marks",
        "networks",
        "bundles",
        "decoder",
        "encoder",
        "version",
    },
}
PRODUCT["onto"] = set(PRODUCT)
PRODUCT["batch"] = set(PRODUCT)
PRODUCT["api"] = set(PRODUCT) - {"batch"}
PRODUCT["cli"] = set(PRODUCT)
PRODUCT["__init__"] = set(PRODUCT)
# Rooms of the laboratory; every room of the product lies below all of them.
LABORATORY: Final[dict[str, set[str]]] = {
    "measure": set(),
    "train": {"measure"},
    "report": {"measure"},
    "bench": {"measure", "train", "report"},
}
ROOMS: Final = {
    **{f"sglat.{room}": {f"sglat.{r}" for r in below} for room, below in PRODUCT.items()},
    **{
        f"sglat_lab.{room}": {f"sglat_lab.{r}" for r in below} | {f"sglat.{r}" for r in PRODUCT}
        for room, below in LABORATORY.items()
    },
}
MODULES: Final = {
    ".".join(path.relative_to(CODEC).with_suffix("").parts).removesuffix(".__init__"): path
    for building in ("sglat", "sglat_lab")
    for path in (CODEC / building).rglob("*.py")
}


def room_of(module: str) -> str:
    """Return the room of a module; a building's own `__init__` is a room too."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 else f"{module}.__init__"


def imported(module: str) -> Iterator[str]:
    """Yield the project's modules that one imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in inner if name in MODULES] or [node.module]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def test_every_module_lies_in_a_room_with_a_rule() -> None:
    found = {room_of(module) for module in MODULES} - {"sglat_lab.__init__"}
    assert found == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    wrong = {
        f"{module} imports {other}"
        for module in MODULES
        if room_of(module) == room
        for other in imported(module)
        if room_of(other) != room and room_of(other) not in ROOMS[room]
    }
    assert wrong == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for type checkers count."""
    arrows = {module: set(imported(module)) - {module} for module in MODULES}
    while True:  # what imports nothing that is left cannot be part of a circle
        leaves = {module for module, others in arrows.items() if not others & arrows.keys()}
        if not leaves:
            break
        arrows = {module: others for module, others in arrows.items() if module not in leaves}
    assert arrows == {}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level packages and the rooms of sglat that a fresh interpreter then holds."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(CODEC)},
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


def test_the_commands_of_the_product_never_load_the_laboratory() -> None:
    commands = sorted(m for m in MODULES if room_of(m) == "sglat.cli")
    assert "sglat_lab" not in loaded_by(f"import {', '.join(commands)}")
