"""The library as the commands read: encode, open, decode, swap.

```python
import sglat

result = sglat.encode("in.mp4", "out.sglat")
for frame in sglat.decode("out.sglat"):
    show(frame.picture)  # uint8 RGB [H, W, 3]
sglat.swap(motion="a.sglat", identity="b.sglat", out="c.sglat")
with sglat.open("c.sglat") as reader:
    print(reader.header.frame_count)
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sglat.files import StrPath, atomic_file, open_input

if TYPE_CHECKING:
    from sglat.bitstream.reader import Reader
    from sglat.bundles.bundle import Bundle
    from sglat.decoder.decode import DecodeConfig, DecodedFrame
    from sglat.encoder.encode import EncodeConfig, EncodeResult


def encode(
    source: StrPath,
    target: StrPath,
    config: EncodeConfig | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> EncodeResult:
    """Encode a talking-head video; see `sglat.encoder.encode.encode`."""
    from sglat.encoder.encode import encode as run

    return run(Path(source), Path(target), config, progress=progress)


@contextmanager
def open(path: StrPath) -> Iterator[Reader]:
    """Yield a reader: header, identity and motion groups, without any network.

    Raises:
        FormatError: the bytes break the specification.
        UsageError: no such file.
    """
    from sglat.bitstream.reader import open_reader

    with open_reader(path) as reader:
        yield reader


def decode(
    path: StrPath, *, bundle: Bundle | None = None, config: DecodeConfig | None = None
) -> Iterator[DecodedFrame]:
    """Yield decoded frames in order, in bounded memory; see `sglat.decoder.decode.decode`."""
    from sglat.decoder.decode import decode as run

    yield from run(Path(path), bundle=bundle, config=config)


def swap(*, motion: StrPath, identity: StrPath, out: StrPath, force: bool = False) -> None:
    """Write a file with the motion of one file, byte for byte, and the look of another.

    Raises:
        BundleMismatchError: the two were made for different decoders.
        UsageError: an input is missing, or `out` exists and `force` is not set.
    """
    from sglat.bitstream.edits import swap as run

    with (
        open_input(motion) as driver,
        open_input(identity) as puppet,
        atomic_file(out, force=force) as file,
    ):
        run(driver, puppet, file)
