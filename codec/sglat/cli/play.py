"""`sgl-play`: a `.sglat` file in the browser, from a server on the loopback address."""

from __future__ import annotations

import json
import webbrowser
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import typer

from sglat.cli.common import new_app, open_source, run, say
from sglat.errors import UsageError
from sglat.files import atomic_file, refuse_existing

app = new_app()
_OF_PAGES: Final = {"source", "target", "identity_file", "bundle", "as_json", "quiet", "force"}
"""Options of a decode that a page has a use for."""


@app.command()
def play_command(
    source: Annotated[Path, typer.Argument(help="A .sglat file; - reads standard input.")],
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the browser.")
    ] = True,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: a free one.")] = 0,
    bundle: Annotated[
        str | None, typer.Option(help="Folder or name of the weights; default: the file's own.")
    ] = None,
    identity_file: Annotated[
        Path | None, typer.Option(help="File that holds the identity, if detached.")
    ] = None,
) -> None:
    """Play a file in the browser until interrupted; nothing leaves this machine.

    The page's address goes to standard output. `sgl-decode FILE.sglat OUT.html` writes the page.
    """
    from sglat.player.serve import PageServer

    page = _page(source, bundle, identity_file)
    with closing(PageServer(page, port=port)) as server:
        print(server.url, flush=True)
        say("playing; Ctrl-C ends")
        if browser and not webbrowser.open(server.url):
            say("no browser was found: open the address in one")
        server.serve()


def is_page(target: Path) -> bool:
    """Tell whether an output is a page, by its name."""
    return target.suffix.lower() in (".html", ".htm")


def refuse_others(context: typer.Context) -> None:
    """Refuse options of a decode that a page has no use for."""
    given = [
        name
        for name in context.params
        if name not in _OF_PAGES
        and (origin := context.get_parameter_source(name)) is not None
        and origin.name == "COMMANDLINE"
    ]
    if given:
        names = ", ".join(name.removeprefix("is_").replace("_", " ") for name in given)
        raise UsageError("bad-options", f"a page has no use for: {names}")


def write_page(
    source: Path,
    target: Path,
    bundle: str | None,
    identity_file: Path | None,
    *,
    as_json: bool,
    force: bool,
) -> None:
    """Write a page that plays a file; options as those of `sgl-decode`."""
    refuse_existing(target, force=force, inputs=[source, identity_file])
    page = _page(source, bundle, identity_file).encode()
    with atomic_file(target, force=force) as out:
        out.write(page)
    if as_json:
        print(json.dumps({"output": str(target), "bytes": len(page)}))
    else:
        say(f"{target}: a page of {len(page) / 1e6:.1f} MB")


def _page(source: Path, bundle: str | None, identity_file: Path | None) -> str:
    from sglat.bundles.bundle import load_bundle
    from sglat.player.page import page_of_file

    name = "standard input" if str(source) == "-" else source.name
    with open_source(source) as file:
        weights = load_bundle(bundle) if bundle else None
        return page_of_file(file, name, bundle=weights, identity_file=identity_file)


def main() -> None:
    """Run `sgl-play`."""
    run(app)


if __name__ == "__main__":
    main()
