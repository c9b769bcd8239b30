"""Running the player's modules under Node, and what they read of files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
NODE: Final = shutil.which("node")
LEAST_NODE: Final = 18  # ES modules, fetch of none, structuredClone; what Debian 12 has
SECONDS: Final = 120


def _node_reason() -> str:
    """Return why the tests cannot run; empty if they can."""
    if NODE is None:
        return "needs Node (apt install nodejs), which is not on PATH"
    done = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=False)
    major = done.stdout.strip().lstrip("v").split(".")[0]
    if not major.isdigit() or int(major) < LEAST_NODE:
        return f"needs Node {LEAST_NODE} or later, found {done.stdout.strip() or 'none'}"
    return ""


NODE_REASON: Final = _node_reason()
if NODE_REASON and os.environ.get("SGLAT_REQUIRE") == "node":
    raise RuntimeError(NODE_REASON)
needs_node = pytest.mark.skipif(bool(NODE_REASON), reason=NODE_REASON or "-")


def run_node(script: str, *arguments: object) -> str:
    """Run a script of this folder; return its standard output."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, str(HERE / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def player_facts(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what the player's decoder reads of files, one process for all."""
    return [json.loads(line) for line in run_node("facts.mjs", *paths).splitlines()]
