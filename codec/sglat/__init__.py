"""sglat: a talking-head codec in StyleGAN2 latent space.

    import sglat

    result = sglat.encode("in.mp4", "out.sglat")      # EncodeConfig, EncodeResult
    sglat.enrol(["clip.mp4", "photo.jpg"], "me.sglat")  # EnrolResult
    sglat.encode("call.mp4", "call.sglat", identity="me.sglat")  # motion alone
    for frame in sglat.decode("out.sglat"):           # DecodeConfig, DecodedFrame
        show(frame.picture)                           # uint8 RGB [H, W, 3]
    sglat.decode_video("out.sglat", "out.mp4")        # with its sound; OutputResult
    sglat.swap(motion="a.sglat", identity="b.sglat", out="c.sglat")
    sglat.decode_video("c.sglat", "c.mp4", onto="b.mp4")
    sglat.edit("a.sglat", "e.sglat", ["set mouth 3+0.4@2s-4s"])  # EditReport
    with sglat.open("c.sglat") as reader:             # no network is loaded
        print(reader.header.frame_count)

All errors raised on purpose are `SglatError`, a missing file (`UsageError`) included.

Public names are resolved on first use, so that `import sglat` loads neither torch nor OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sglat.version import __version__ as __version__

if TYPE_CHECKING:  # what `__getattr__` finds, for type checkers and editors
    from sglat.api import decode as decode
    from sglat.api import decode_video as decode_video
    from sglat.api import edit as edit
    from sglat.api import encode as encode
    from sglat.api import encode_all as encode_all
    from sglat.api import enrol as enrol
    from sglat.api import open as open
    from sglat.api import swap as swap
    from sglat.bitstream.edit_file import EditReport as EditReport
    from sglat.bitstream.edit_motion import MotionEditor as MotionEditor
    from sglat.bundles.bundle import load_bundle as load_bundle
    from sglat.decoder.decode import DecodeConfig as DecodeConfig
    from sglat.decoder.decode import DecodedFrame as DecodedFrame
    from sglat.decoder.output import OutputResult as OutputResult
    from sglat.encoder.config import EncodeConfig as EncodeConfig
    from sglat.encoder.encode import EncodeResult as EncodeResult
    from sglat.encoder.enrol import EnrolResult as EnrolResult
    from sglat.encoder.everyone import SceneResult as SceneResult
    from sglat.errors import FormatError as FormatError
    from sglat.errors import SglatError as SglatError
    from sglat.errors import UsageError as UsageError

_PUBLIC: Final[dict[str, str]] = {
    "DecodeConfig": "sglat.decoder.decode",
    "DecodedFrame": "sglat.decoder.decode",
    "EditReport": "sglat.bitstream.edit_file",
    "EncodeConfig": "sglat.encoder.config",
    "EncodeResult": "sglat.encoder.encode",
    "EnrolResult": "sglat.encoder.enrol",
    "FormatError": "sglat.errors",
    "MotionEditor": "sglat.bitstream.edit_motion",
    "OutputResult": "sglat.decoder.output",
    "SceneResult": "sglat.encoder.everyone",
    "SglatError": "sglat.errors",
    "UsageError": "sglat.errors",
    "decode": "sglat.api",
    "decode_video": "sglat.api",
    "edit": "sglat.api",
    "encode": "sglat.api",
    "encode_all": "sglat.api",
    "enrol": "sglat.api",
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
