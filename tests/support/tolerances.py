"""Every tolerance used by the tests, each with its measured reason."""

from __future__ import annotations

PROTOTYPE_ATOL = 1e-5
"""The same operations on pictures of size 1: measured 0; room for another order of summation."""
