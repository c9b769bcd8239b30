"""Fixtures shared by all rooms."""

from __future__ import annotations

import os

# One thread a worker: the suite runs in parallel processes on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No key of whoever runs the tests: it would sign what they write.
os.environ["SGLAT_CONFIG"] = os.devnull
