"""Results of expensive steps on disk, so that a repeated benchmark goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sglat.files import atomic_file, write_atomically

PROTOCOL = 2
"""Raised when figures of the same name come to mean something else."""


def digest(*parts: object) -> str:
    """Return a short name for what a result depends on; files count by their bytes."""
    total = hashlib.sha256(str(PROTOCOL).encode())
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else repr(part).encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()[:16]


class Cache:
    """One folder of results that share what they depend on.

    Args:
        folder: made if it is absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def record(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a JSON value, made on first use."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            write_atomically(file, json.dumps(make()))
        return json.loads(file.read_text(encoding="utf-8"))

    def pictures(self, name: str, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return an array of pictures, made on first use and read as it is needed."""
        return self.array(name, make)

    def array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return any array, likewise."""
        file = self.folder / f"{name}.npy"
        if not file.exists():
            with atomic_file(file, force=True) as stream:
                np.save(stream, make(), allow_pickle=False)
        found: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        return found
