"""What the repository's Markdown names: links, paths, commands and commit hashes."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TOP_FOLDERS: Final = ("benchmarks", "bin", "codec", "format_spec", "tests")
GENERATED: Final = ("benchmarks/report", "demo_output", ".venv")
# Short module paths may be given from any of these.
BASES: Final = (ROOT, ROOT / "codec", ROOT / "codec/sglat", ROOT / "codec/sglat_lab")

_LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_SPAN: Final = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_PATH: Final = re.compile(r"[\w.{},-]+(?:/[\w.{},-]+)+/?")
_SOURCE_FILE: Final = re.compile(r"[\w-]+(?:/[\w-]+)+\.(?:py|md|json|toml)")
_COMMAND: Final = re.compile(
    r"(?:^|(?<=[\s;&|(]))(?:bin/)?"
    r"(?:(?P<script>sgl-[a-z]+)|python3? -m (?P<module>[\w.]+))(?P<rest>.*)"
)
_OPTION: Final = re.compile(r"--?[A-Za-z][\w-]*")
_HASH: Final = re.compile(
    r"(?<![\w-])(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{7,8}(?![\w-])(?!…)"
)
_PROVENANCE_HEADING: Final = re.compile(r"#+ Provenance\b")


@dataclass(frozen=True)
class Command:
    """A command as a page writes it: an entry point or a module, and its options."""

    script: str | None
    module: str | None
    subcommand: str | None
    options: tuple[str, ...]


def pages() -> list[Path]:
    """Return every Markdown file of the repository that nobody generates locally."""
    found = (
        path
        for path in ROOT.rglob("*.md")
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    )
    return sorted(
        path
        for path in found
        if not str(path.relative_to(ROOT)).startswith(GENERATED) and "egg-info" not in str(path)
    )


def links(text: str) -> Iterator[str]:
    """Yield the targets of relative links and pictures, without their anchors."""
    for target in _LINK.findall(text):
        if not re.match(r"[a-z]+:|#", target):
            yield target.split("#")[0]


def code(text: str) -> Iterator[str]:
    """Yield every line of a code block and every code span, joined over line ends."""
    prose: list[str] = []
    is_fenced, carried = False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or (line.startswith("    ") and not (prose and prose[-1].strip())):
            carried += line.strip()
            if carried.endswith("\\"):
                carried = carried[:-1]
            else:
                yield carried
                carried = ""
        else:
            prose.append(line)
    for _, span in _SPAN.findall("\n".join(prose)):
        yield " ".join(span.split())


def missing_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    return [target for target in links(text) if not (page.parent / target).exists()]


def missing_paths(page: Path, text: str) -> list[str]:
    """Return the repository's paths in code spans and blocks that do not exist."""
    missing = []
    for piece in code(text):
        for word in piece.split():
            path = word.strip("`,;:()").rstrip(".")
            is_ours = path.split("/")[0] in TOP_FOLDERS and bool(_PATH.fullmatch(path))
            is_source = bool(_SOURCE_FILE.fullmatch(path)) and piece == word
            if not (is_ours or is_source) or path.startswith(GENERATED) or "{" in path:
                continue
            if not any((base / path).exists() for base in (page.parent, *BASES)):
                missing.append(path)
    return missing


def module_file(name: str) -> Path | None:
    """Return the file of a module of the project, None if there is no such module."""
    place = (
        ROOT / ("codec" if name.split(".")[0].startswith("sglat") else "") / name.replace(".", "/")
    )
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in files if path.is_file()), None)


def missing_modules(text: str) -> list[str]:
    """Return dotted names of ours in code spans that are neither modules nor names in one."""
    missing = []
    for piece in code(text):
        for name in re.findall(r"(?<![\w./-])sglat(?:_lab)?(?:\.\w+)+", piece):
            parts = name.split(".")
            if parts[-1] in ("xml", "html", "json", "csv"):
                continue  # a file of that name
            end = next((n for n in range(len(parts), 0, -1) if module_file(".".join(parts[:n]))), 0)
            if len(parts) - end > 2:
                missing.append(name)
            elif end < len(parts):
                file = module_file(".".join(parts[:end]))
                if file is None or not re.search(rf"\b{parts[end]}\b", file.read_text()):
                    missing.append(name)
    return missing


def commands(text: str) -> Iterator[Command]:
    """Yield the commands of the project that a page names, in spans and blocks."""
    for piece in code(text):
        for found in re.finditer(_COMMAND, piece):
            module = found["module"]
            if module and not module.startswith(("sglat", "tests")):
                continue
            rest = re.split(r"\s#|\s\(|[|;&]|\s→", f"{found['rest']} ")[0]
            try:
                words = shlex.split(rest.replace("[", " ").replace("]", " "))
            except ValueError:
                words = rest.split()
            options = tuple(o for o in words if _OPTION.fullmatch(o) and not _is_number(o))
            first = words[0] if words and re.fullmatch(r"[a-z]+", words[0]) else None
            yield Command(found["script"], module, first, options)


def loose_options(text: str) -> Iterator[str]:
    """Yield long options of code spans that begin with an option instead of a command."""
    for piece in code(text):
        if re.match(r"--[a-z]", piece):
            yield from (word.split("=")[0] for word in re.findall(r"--[a-z][\w-]*", piece))


def _is_number(word: str) -> bool:
    return bool(re.fullmatch(r"-\d.*", word))


@cache
def entry_points() -> dict[str, str]:
    """Return the console scripts of pyproject.toml with their modules."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {name: target.split(":")[0] for name, target in project["scripts"].items()}


def hashes(text: str) -> list[str]:
    """Return what looks like a commit hash outside of provenance lines and sections."""
    found: list[str] = []
    depth = 0  # of the provenance heading whose section this is
    is_provenance = False
    for line in text.splitlines():
        if line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            if _PROVENANCE_HEADING.match(line):
                is_provenance, depth = True, level
            elif level <= depth:
                is_provenance = False
        if is_provenance or line.startswith("Provenance:"):
            continue
        found += _HASH.findall(line)
    return found
