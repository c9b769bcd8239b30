"""A few real aligned faces for calibration, from the shared folder."""

from __future__ import annotations

import io
import tarfile

import numpy as np
from numpy.typing import NDArray

from tests.support.shared import shared_path


def shared_faces(count: int, *, every: int = 1) -> NDArray[np.uint8]:
    """Return aligned 128 px faces `[N, 128, 128, 3]`, or skip the calling test."""
    from PIL import Image

    pictures = []
    with tarfile.open(shared_path("data/faces128/images.tar")) as tar:
        seen = 0
        for member in tar:
            if not member.isfile():
                continue
            if seen % every == 0:
                data = tar.extractfile(member)
                assert data is not None
                with Image.open(io.BytesIO(data.read())) as picture:
                    pictures.append(np.asarray(picture.convert("RGB")))
            seen += 1
            if len(pictures) == count:
                break
    return np.stack(pictures)
