"""Where the shared material lies, and clear skips where it is absent."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("SGLAT_SHARED", REPOSITORY.parent / "shared"))
GOLDEN = Path(os.environ.get("SGLAT_GOLDEN", SHARED / "golden"))

_ERRORS = (REPOSITORY / "format_spec" / "SPEC.md").read_text().partition("\n## 14. Error codes")[2]
ERROR_CODES = frozenset(re.findall(r"^\| `([a-z-]+)` \|", _ERRORS.partition("\n## ")[0], re.M))
"""Codes of SPEC.md section 14."""


def shared_path(relative: str) -> Path:
    """Return a path in the shared folder, or skip the calling test."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {relative} of the shared folder (set SGLAT_SHARED)")
    return path


def clip_paths() -> list[Path]:
    """Return the real test clips, or skip the calling test."""
    return sorted(shared_path("clips").glob("*.mp4"))
