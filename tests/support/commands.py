"""The commands run in this process: importing torch anew for each run takes seconds."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from subprocess import CompletedProcess

import pytest


def status_of(command: object, *arguments: object, module: str | None = None) -> int:
    """Run a command of the product, or of a module, in this process; return its exit status."""
    main = import_module(module or f"sglat.cli.{command}").main
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(sys, "argv", [f"sgl-{command}", *map(str, arguments)])
        main()
    return int(caught.value.code or 0)


def run_here(
    capture: pytest.CaptureFixture[bytes],
    command: str,
    *arguments: object,
    stdin: bytes | None = None,
) -> CompletedProcess[bytes]:
    """Run a command in this process; return what a process of its own would.

    Args:
        capture: `capfdbinary`, which takes what libraries write to the descriptors too.
        command: name without `sgl-`.
        arguments: of the command line.
        stdin: what standard input holds.
    """
    capture.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        if stdin is not None:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            status = status_of(command, *arguments)
        finally:
            shown = capture.readouterr()
    return CompletedProcess([command, *map(str, arguments)], status, shown.out, shown.err)
