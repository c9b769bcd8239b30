"""The page that plays `.sglat` files, as one HTML file with scripts, weights and a file in it.

Scripts become one classic script: each module a function, in the order of their imports. The page's
content security policy names the hashes of that script and of the style, so that nothing else runs.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from sglat.bitstream import demux
from sglat.bitstream.demux import Demuxer
from sglat.bitstream.edits import attach
from sglat.bitstream.reader import identity_beside
from sglat.bitstream.records import IdentityReference
from sglat.bundles.bundle import Bundle, bundle_for, load_bundle
from sglat.errors import FormatError, UsageError
from sglat.files import naming, open_input
from sglat.player.marks import pack_marks
from sglat.player.pack import pack_weights

FOLDER: Final = Path(__file__).parent
ENTRY: Final = "page.js"
MAX_FILE_BYTES: Final = 64 << 20  # of a file inside; as base64 a third more
_IMPORT: Final = re.compile(
    r"""^(?:import|export)\s+(?P<what>\{[^}]*\}|\*\s+as\s+\w+)\s+from\s+"(?P<path>\.[^"]+)";\n""",
    re.MULTILINE,
)
_EXPORT: Final = re.compile(
    r"^export (?P<kind>async function\*?|function\*?|class|const) (?P<name>\w+)", re.MULTILINE
)


def build_page(*, file: bytes | None = None, name: str = "", bundle: Bundle | None = None) -> str:
    """Return the page.

    Args:
        file: a `.sglat` file that it opens; None: an empty player.
        name: of that file, as shown.
        bundle: whose weights it holds; None: the embedded bundle's.

    Raises:
        BundleError: the page cannot compute the bundle's networks.
        UsageError: `file-too-large`.
    """
    if file is not None and len(file) > MAX_FILE_BYTES:
        raise UsageError(
            "file-too-large",
            f"expected a file of at most {MAX_FILE_BYTES >> 20} MB in a page, found "
            f"{len(file) >> 20} MB; write the page without it and open the file there",
        )
    script, style = bundled_script(), _text("page.css")
    parts = {
        "policy": html.escape(policy(script, style)),
        "title": html.escape(f"{name} – sglat" if name else "sglat"),
        "style": style,
        "script": script,
        "weights": _weights((bundle or load_bundle()).folder),
        "marks": pack_marks(),
        "file_name": html.escape(name),
        "file": "" if file is None else base64.b64encode(file).decode(),
    }
    # one pass, so that a name like {{weights}} stays text
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _text("page.html"))


def page_of_file(
    file: BinaryIO, name: str, *, bundle: Bundle | None = None, identity_file: Path | None = None
) -> str:
    """Return the page with a file inside, and the weights that it was made with.

    Args:
        file: open for reading in binary mode; a pipe will do.
        name: as shown.
        bundle: loaded weights; None loads the bundle that the file names.
        identity_file: holds the identity if the file only refers to it; None looks for the name of
            the reference beside the file. It goes into the page too.

    Raises:
        FormatError: this is no `.sglat` file, or its header is damaged. What is wrong further on,
            the page shows.
        BundleError: the page cannot compute the bundle's networks.
        UsageError: `file-too-large`; `no-identity` where the identity was not found.
    """
    with naming(file):
        data = file.read(MAX_FILE_BYTES + 1)
        demuxer = Demuxer(io.BytesIO(data))
        used = bundle.of_file(demuxer.header) if bundle else bundle_for(demuxer.header)
    reference = _reference(demuxer)
    if reference is not None:
        found = identity_file or identity_beside(file, reference)
        if found is None:
            raise UsageError(
                "no-identity",
                f"the identity lies in another file, {reference.hint or 'unnamed'}; put it beside "
                "this file or name it by --identity-file",
            )
        whole = io.BytesIO()
        with open_input(found) as look, naming(found):
            attach(io.BytesIO(data), look, whole)
        data = whole.getvalue()
    return build_page(file=data, name=name, bundle=used.at(used.rungs[0]))


def _reference(demuxer: Demuxer) -> IdentityReference | None:
    """Return the reference to an identity, which comes before all frames."""
    with suppress(FormatError):  # the page tells of damage
        for event in demuxer:
            match event:
                case demux.Reference():
                    return event.unpack()
                case demux.Layer() | demux.Group():
                    return None
    return None


def policy(script: str, style: str) -> str:
    """Return the content security policy of a page with this script and style."""
    rules = {
        "default-src": "'none'",
        "script-src": f"'sha256-{_digest(script)}' 'wasm-unsafe-eval'",
        "style-src": f"'sha256-{_digest(style)}'",
        "img-src": "blob: data:",
        "media-src": "blob:",
        "worker-src": "blob:",
        "connect-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{key} {value}" for key, value in rules.items())


@lru_cache(maxsize=2)
def _weights(folder: Path) -> str:
    """Return the packed weights of a bundle in base64; packing takes most of a page's time."""
    return base64.b64encode(pack_weights(load_bundle(folder))).decode()


@cache
def bundled_script() -> str:
    """Return all modules as one script."""
    order: list[str] = []
    _visit(ENTRY, order, ())
    body = "".join(_wrapped(name) for name in order)
    script = f'"use strict";\n(() => {{\nconst modules = {{}};\n{body}}})();\n'
    if "</script" in script.lower() or "<!--" in script:
        raise AssertionError("a module holds text that ends a script in HTML")
    return script


def _visit(name: str, order: list[str], path: tuple[str, ...]) -> None:
    if name in path:
        raise AssertionError(f"modules import each other in a circle: {' '.join((*path, name))}")
    if name in order:
        return
    for match in _IMPORT.finditer(_text(name)):
        _visit(_resolve(name, match["path"]), order, (*path, name))
    order.append(name)


def _wrapped(name: str) -> str:
    """Return a module as a function that fills `modules[name]`."""
    exported: list[str] = []

    def link(match: re.Match[str]) -> str:
        source = f"modules[{_resolve(name, match['path'])!r}]"
        what = match["what"]
        if what.startswith("*"):
            return f"const {what.split()[-1]} = {source};\n"
        names = [item.split(" as ") for item in re.findall(r"\w+(?: as \w+)?", what[1:-1])]
        if match[0].startswith("export"):
            exported.extend(f"{item[-1]}: {source}.{item[0]}" for item in names)
            return ""
        return f"const {{ {', '.join(': '.join(item) for item in names)} }} = {source};\n"

    def keep(match: re.Match[str]) -> str:
        exported.append(match["name"])
        return f"{match['kind']} {match['name']}"

    code = _EXPORT.sub(keep, _IMPORT.sub(link, _text(name)))
    if left := re.search(r"^(?:export|import)\b.*", code, re.MULTILINE):
        raise AssertionError(f"{name}: expected a form that the packer knows, found {left[0]!r}")
    return f"modules[{name!r}] = (() => {{\n{code}\nreturn {{ {', '.join(exported)} }};\n}})();\n"


def _resolve(name: str, path: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(name).parent / path).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


@cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
