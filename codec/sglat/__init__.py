"""sglat: a talking-head codec in StyleGAN2 latent space.

Public names are resolved on first use, so that `import sglat` loads neither torch nor OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sglat.version import __version__ as __version__

if TYPE_CHECKING:  # what `__getattr__` finds, for type checkers and editors
    from sglat.api import decode as decode
    from sglat.api import encode as encode
    from sglat.api import open as open
    from sglat.api import swap as swap
    from sglat.bundles.bundle import load_bundle as load_bundle
    from sglat.decoder.decode import DecodeConfig as DecodeConfig
    from sglat.encoder.encode import EncodeConfig as EncodeConfig
    from sglat.encoder.encode import EncodeResult as EncodeResult
    from sglat.errors import FormatError as FormatError
    from sglat.errors import SglatError as SglatError

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
