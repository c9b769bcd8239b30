"""The options of a command, from its own parser, without running it."""

from __future__ import annotations

import argparse
import importlib
import inspect
from functools import cache
from typing import Any
from unittest import mock

import typer


class _Captured(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def _capture(parser: argparse.ArgumentParser, *_: object, **__: object) -> Any:
    raise _Captured(parser)


@cache
def options_of(module_name: str) -> dict[str | None, frozenset[str]]:
    """Return the options of a module that is a command.

    Args:
        module_name: module with a typer `app`, a `main` for `typer.run` or one with argparse.

    Returns:
        The options by subcommand; `None` holds those of all together.
    """
    module = importlib.import_module(module_name)
    app = getattr(module, "app", None)
    if not isinstance(app, typer.Typer):
        if not inspect.signature(module.main).parameters:
            return {None: _argparse_options(module.main)}
        app = typer.Typer()
        app.command()(module.main)
    command = typer.main.get_command(app)
    subcommands = getattr(command, "commands", {})
    found: dict[str | None, frozenset[str]] = {
        name: frozenset(_click_options(inner)) for name, inner in subcommands.items()
    }
    found[None] = frozenset(_click_options(command)).union(*found.values())
    return found


def _click_options(command: Any) -> set[str]:
    named = {
        flag
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("-")
    }
    return named | {"--help"}


def _argparse_options(main: Any) -> frozenset[str]:
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", _capture),
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", _capture),
    ):
        try:
            main()
        except _Captured as captured:
            return frozenset(_flags(captured.parser))
    return frozenset({"--help"})


def _flags(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(_flags(inner) for inner in action.choices.values()))
    return found
