"""`pip install sglat` brings the product alone: it needs no package of the laboratory's extras."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
CODEC: Final = ROOT / "codec"
PRODUCT_EXTRAS: Final = (
    "encode", "live", "c2pa", "virtual-camera", "plot", "batch", "ray", "insightface", "lpips"
)  # fmt: skip
LABORATORY_EXTRAS: Final = ("bench", "train", "simulate", "fuzz", "test")
# Import names that differ from their distribution's.
IMPORT_NAMES: Final = {
    "c2pa-python": "c2pa",
    "scikit-image": "skimage",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pytest-xdist": "xdist",
}


def distributions(requirements: list[str]) -> set[str]:
    """Return the import names of what requirements name."""
    names = {re.split(r"[\s<>=!~\[;]", line)[0].lower() for line in requirements}
    return {IMPORT_NAMES.get(name, name) for name in names}


def project() -> dict[str, Any]:
    """Return the project table of pyproject.toml."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def product() -> set[str]:
    """Return the import names of the product's dependencies and extras."""
    extras = project()["optional-dependencies"]
    listed = project()["dependencies"] + [line for name in PRODUCT_EXTRAS for line in extras[name]]
    # torchvision is what lpips brings
    return distributions(listed) | {"torchvision"}


def laboratory() -> set[str]:
    """Return the import names that only the laboratory's extras bring."""
    extras = project()["optional-dependencies"]
    return distributions([line for name in LABORATORY_EXTRAS for line in extras[name]])


def third_party(folder: Path) -> dict[str, str]:
    """Return the packages that a folder's modules import anywhere, each with one such module."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and not top.startswith("sglat"):
                    found.setdefault(top, path.name)
    return found


def importing_all(folder: Path, blocked: set[str]) -> subprocess.CompletedProcess[str]:
    """Import every module below a folder in a fresh interpreter that lacks some packages."""
    modules = [
        ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(folder.rglob("*.py"))
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {sorted(blocked)!r}: sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder.parent)},
    )


def test_every_extra_belongs_to_a_building() -> None:
    extras = set(project()["optional-dependencies"])
    assert extras == {*PRODUCT_EXTRAS, *LABORATORY_EXTRAS}


def test_the_dependencies_bring_nothing_of_the_laboratory() -> None:
    assert distributions(project()["dependencies"]) & laboratory() == set()


def test_the_product_imports_only_declared_packages() -> None:
    wrong = {p: m for p, m in third_party(CODEC / "sglat").items() if p not in product()}
    assert wrong == {}


def test_every_dependency_is_used() -> None:
    used = third_party(CODEC / "sglat")
    assert distributions(project()["dependencies"]) - used.keys() == set()


def test_the_product_runs_without_the_laboratorys_packages() -> None:
    done = importing_all(CODEC / "sglat", laboratory())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "package_name"), [("import scipy", "scipy"), ("from skimage import io", "skimage")]
)
def test_a_package_of_the_laboratory_is_noticed(
    tmp_path: Path, line: str, package_name: str
) -> None:
    package = tmp_path / "toy"
    package.mkdir()
    (package / "__init__.py").write_text(line)
    assert third_party(package) == {package_name: "__init__.py"}
    done = importing_all(package, laboratory())
    assert "ModuleNotFoundError" in done.stderr and done.returncode != 0
