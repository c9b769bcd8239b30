"""Every tolerance used by the tests, each with its measured reason."""

from __future__ import annotations

PROTOTYPE_ATOL = 1e-5
"""The same operations on pictures of size 1: measured 0; room for another order of summation."""

# --- media ---
# x264 on 64x48 to 256x192 test pictures: mean absolute error 2.1 levels measured, nearly all of it
# 4:2:0 chroma at the edges of the red square; mean shift of a channel 0.44 measured.
LOSSY_VIDEO_MEAN_LEVELS = 4.0
LOSSY_VIDEO_SHIFT_LEVELS = 1.0

# --- embedded face networks ---
FOLDED_NORM_ATOL = 1e-5
"""Folding moves float32 roundings through up to fifteen layers; measured at most 1.4e-7."""
VIEW_POINT_ATOL_PIXELS = 0.15
"""Bilinear sampling of a dot 3 px wide, quantised to 8 bits; measured at most 0.036 px."""
