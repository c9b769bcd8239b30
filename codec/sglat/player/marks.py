"""Tables of the invisible watermark, by which the page marks the pictures that it writes."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from sglat.marks import watermark


def pack_marks() -> str:
    """Return what `watermark.js` needs, as JSON: constants, layout of the public key, dither."""
    cells, masks = watermark.layout(watermark.DEFAULT_KEY)
    # the dither is (n + 0.5) / 256 of bytes n that repeat row after row
    dither = watermark._dither(256, 256) * 256 - 0.5
    tables: dict[str, Any] = {
        "version": watermark.VERSION,
        "versionBits": watermark.VERSION_BITS,
        "idBytes": watermark.ID_BYTES,
        "checkBits": watermark.CHECK_BITS,
        "checkPolynomial": watermark.CHECK_POLYNOMIAL,
        "stepBits": watermark.STEP_BITS,
        "memory": watermark.MEMORY,
        "polynomials": watermark.POLYNOMIALS,
        "tileCells": watermark.TILE_CELLS,
        "groupCells": watermark.GROUP_CELLS,
        "delays": watermark.DELAYS,
        "halfPeriodSeconds": watermark.HALF_PERIOD_SECONDS,
        "softness": watermark.SOFTNESS,
        "rmsLevels": watermark.RMS_LEVELS,
        "rmsLevelsLarge": watermark.RMS_LEVELS_LARGE,
        "leastGain": watermark.LEAST_GAIN,
        "mostGain": watermark.MOST_GAIN,
        "cells": cells.tolist(),
        "masks": masks.tolist(),
        "dither": base64.b64encode(np.rint(dither).astype(np.uint8).tobytes()).decode(),
    }
    return json.dumps(tables, separators=(",", ":"))
