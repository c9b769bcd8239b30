"""sglat: a talking-head codec in StyleGAN2 latent space.

Public names are resolved on first use, so that `import sglat` loads neither torch nor OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

__version__: Final = "0.1.0"

_PUBLIC: Final[dict[str, str]] = {
    "DecodeConfig": "sglat.decoder.decode",
    "EncodeConfig": "sglat.encoder.encode",
    "EncodeResult": "sglat.encoder.encode",
    "FormatError": "sglat.errors",
    "SglatError": "sglat.errors",
    "decode": "sglat.api",
    "encode": "sglat.api",
    "load_bundle": "sglat.bundles.bundle",
    "open": "sglat.api",
    "swap": "sglat.api",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'sglat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
