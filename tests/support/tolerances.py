"""Every tolerance used by the tests, each with its measured reason."""

from __future__ import annotations
