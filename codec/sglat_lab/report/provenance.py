"""Where and with what figures were measured: commit, command, machine, packages."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PACKAGES: Final = ("numpy", "torch", "av", "scikit-image", "scipy", "bjontegaard", "mediapipe",
                   "matplotlib", "zstandard")  # fmt: skip


def package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def command(arguments: Sequence[str]) -> str:
    """Return a command line without the folders of the machine it ran on."""
    names = [Path(part).name if "/" in part else part for part in arguments]
    return " ".join(["sgl-bench", *names[1:]])


def commit() -> str | None:
    """Return the short hash of the checkout we run from; None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def machine() -> str:
    """Return the processor and its cores in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
