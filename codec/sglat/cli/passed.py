"""A command that takes the options of another one as its own, so that they are written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any


def with_options_of(
    own: Callable[..., None], other: Callable[..., None], *, left_out: Collection[str]
) -> Callable[..., None]:
    """Return a command for typer with the parameters of two.

    Args:
        own: the command; its last parameter `**passed` gets the values of the other's parameters by
            their names, those left out with their defaults.
        other: the command whose options are taken.
        left_out: parameters of `other` that make no sense here, besides those of `own`.
    """
    mine = inspect.signature(own, eval_str=True).parameters
    more = inspect.signature(other, eval_str=True).parameters
    kept = [p for p in mine.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    taken = [p for p in more.values() if p.name not in left_out and p.name not in mine]
    fixed = {p.name: p.default for p in more.values() if p.name not in {t.name for t in taken}}

    def command(**chosen: Any) -> None:
        passed = fixed | {p.name: chosen.pop(p.name) for p in taken}
        own(**chosen, **{name: value for name, value in passed.items() if name not in mine})

    command.__name__, command.__doc__ = own.__name__, own.__doc__
    command.__annotations__ = {}
    shown = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*kept, *taken]]
    setattr(command, "__signature__", inspect.Signature(shown))  # noqa: B010 - unknown to mypy
    return command
