"""Pages name what exists: links, paths, modules, commands, options; and no commit in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.documents import (
    ROOT,
    Command,
    commands,
    entry_points,
    hashes,
    loose_options,
    missing_links,
    missing_modules,
    missing_paths,
    module_file,
    pages,
)
from tests.support.options import options_of

PAGES: Final = {str(path.relative_to(ROOT)): path for path in pages()}
every_page = pytest.mark.parametrize("name", PAGES)


def wrong_commands(text: str) -> list[str]:
    """Return the commands and options of a page that do not exist."""
    wrong = []
    for command in commands(text):
        module = module_of(command)
        if module is None or not runs(module):
            wrong.append(str(command.script or command.module))
            continue
        if command.options:
            known = options_of(module)
            options = known.get(command.subcommand, known[None])
            wrong += [option for option in command.options if option not in options]
    return wrong


def module_of(command: Command) -> str | None:
    """Return the module that a command runs, None if no entry point has its name."""
    return entry_points().get(command.script) if command.script else command.module


def runs(module: str) -> bool:
    """Return whether `python -m` does something with a module."""
    file = module_file(module)
    if file is not None and file.name == "__init__.py":
        file = file.with_name("__main__.py")
    return file is not None and file.is_file() and '__name__ == "__main__"' in file.read_text()


def test_pages_are_found() -> None:
    wanted = {"README.md", "benchmarks/README.md", "benchmarks/journal/README.md"}
    assert wanted | {"format_spec/SPEC.md", "codec/sglat/bundles/mini/MODEL_CARD.md"} <= set(PAGES)


@every_page
def test_relative_links_lead_somewhere(name: str) -> None:
    assert missing_links(PAGES[name], PAGES[name].read_text()) == []


@every_page
def test_named_paths_exist(name: str) -> None:
    assert missing_paths(PAGES[name], PAGES[name].read_text()) == []


@every_page
def test_named_modules_exist(name: str) -> None:
    assert missing_modules(PAGES[name].read_text()) == []


@every_page
def test_commands_and_their_options_exist(name: str) -> None:
    assert wrong_commands(PAGES[name].read_text()) == []


def test_options_named_alone_belong_to_a_command() -> None:
    texts = {name: path.read_text() for name, path in PAGES.items()}
    modules = {module_of(c) for text in texts.values() for c in commands(text)}
    modules |= set(entry_points().values())
    known = frozenset().union(*(options_of(m)[None] for m in modules if m and runs(m)))
    wrong = {
        f"{name}: {option}"
        for name, text in texts.items()
        for option in loose_options(text)
        if option not in known
    }
    assert wrong == set()


@every_page
def test_no_commit_stands_outside_provenance(name: str) -> None:
    assert hashes(PAGES[name].read_text()) == []


def test_every_journal_page_is_in_the_index_and_says_question_to_provenance() -> None:
    folder = ROOT / "benchmarks/journal"
    index = (folder / "README.md").read_text()
    for path in sorted(folder.glob("*.md")):
        if path.name == "README.md":
            continue
        headings = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert re.fullmatch(r"\d{4}-\d{2}-[a-z0-9-]+\.md", path.name), path.name
        assert f"]({path.name})" in index, path.name
        assert headings == ["Question", "Setup", "Table", "Decision"], path.name
        assert "\nProvenance: " in path.read_text(), path.name


def test_two_commands_of_the_readme_do_the_set_up() -> None:
    text = PAGES["README.md"].read_text()
    targets = re.findall(r"^    make (\w+)", text, re.MULTILINE)
    assert targets == ["demo", "test"]


BAD: Final[dict[str, tuple[Callable[[str], list[str]], str, str]]] = {
    "link": (lambda t: missing_links(ROOT / "x.md", t), "[a](README.md#use)", "[a](nowhere.md)"),
    "picture": (
        lambda t: missing_links(ROOT / "x.md", t),
        "![a](benchmarks/results/demo.jpg)",
        "![a](benchmarks/demo.jpg)",
    ),
    "path": (
        lambda t: missing_paths(ROOT / "x.md", t),
        "`codec/sglat/api.py`",
        "`codec/sglat/nothing.py`",
    ),
    "short path": (
        lambda t: missing_paths(ROOT / "x.md", t),
        "`decoder/decode.py`",
        "`decoder/gone.py`",
    ),
    "path in a command": (
        lambda t: missing_paths(ROOT / "x.md", t),
        "    ls codec/sglat",
        "    ls codec/nothing",
    ),
    "module": (missing_modules, "`sglat.networks.faces`", "`sglat.networks.nothing`"),
    "name in a module": (missing_modules, "`sglat.api.encode`", "`sglat.api.nothing`"),
    "script": (wrong_commands, "`sgl-info x.sglat`", "`sgl-look x.sglat`"),
    "option": (wrong_commands, "`sgl-info x.sglat --json`", "`sgl-info x.sglat --yaml`"),
    "option of a subcommand": (
        wrong_commands,
        "`sgl-bundles list`",
        "`sgl-bundles list --nothing`",
    ),
    "module that is no command": (
        wrong_commands,
        "    python -m sglat_lab.bench.synthesis --rounds 3",
        "    python -m sglat.api",
    ),
    "option of a module, argparse": (
        wrong_commands,
        "    python -m sglat_lab.bench.synthesis \\\n        --rounds 3",
        "    python -m sglat_lab.bench.synthesis \\\n        --turns 3",
    ),
    "hash": (hashes, "Provenance: at 5fa1fd4", "At 5fa1fd4 it was slow."),
    "hash after provenance": (
        hashes,
        "## Provenance\n\n* commit 5fa1fd4\n",
        "## Provenance\n\nx\n\n## More\n\ncommit 5fa1fd4",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_the_checker_passes_what_is_right_and_finds_what_is_wrong(kind: str) -> None:
    check, good, bad = BAD[kind]
    assert check(good) == []
    assert check(bad) != []


def test_numbers_and_names_of_files_are_no_commits() -> None:
    assert hashes("12345678 frames, 1e-05, defaced, alexnet-owt-7be5be79, cbb42b56bb3d2256") == []


def test_options_may_be_negative_numbers(tmp_path: Path) -> None:
    (command,) = commands("`sgl-encode a.mp4 b.sglat -q 50 --offset -5`")
    assert command.options == ("-q", "--offset")
