"""`python -m sglat_lab.bench NAME …`: run a benchmark by the name of its module."""

from __future__ import annotations

import pkgutil
import runpy
import sys

from sglat_lab import bench


def main() -> None:
    """Run the module named by the first argument with the others."""
    names = sorted(module.name for module in pkgutil.iter_modules(bench.__path__))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        found = sys.argv[1] if len(sys.argv) > 1 else "nothing"
        sys.exit(f"expected the name of a benchmark, found {found}: one of {', '.join(names)}")
    name = f"{bench.__name__}.{sys.argv.pop(1)}"
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
