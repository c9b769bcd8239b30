"""How step lengths change over an optimisation."""

from __future__ import annotations


def warm_up_and_fall(step: int, steps: int, warm_up: int) -> float:
    """Return the factor of the rate at a step: rising to 1 over `warm_up` steps, falling from the
    middle on."""
    return min(1.0, (step + 1) / warm_up, 2.0 * (steps - step) / steps)
