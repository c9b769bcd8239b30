"""`sgl-bundles`: list, fetch, verify, import, locate and remove sets of weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sglat.cli.common import ByteBar, StageBar, new_app, run, say

app = new_app(
    "Sets of weights: what is here, what can be fetched, and your own.", has_subcommands=True
)

Accept = Annotated[
    bool, typer.Option("--accept-licence", help="Accept the licences shown, for scripts.")
]


@app.command("list")
def list_command(
    name: Annotated[
        str | None, typer.Argument(help="Show the published files of this bundle.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show all bundles: what is here, what is missing, sizes and decoder ids."""
    from sglat.bundles.store import list_bundles

    if name is not None:
        _list_files(name, as_json=as_json)
        return
    states = list_bundles()
    records = []
    for state in states:
        decoder_id = state.manifest.decoder_id if state.manifest else None
        records.append(
            {
                "name": state.name,
                "state": _state_word(state.manifest is not None, len(state.missing_files)),
                "size_bytes": state.size_bytes,
                "download_bytes": state.download_bytes,
                "is_download_known": state.is_download_known,
                "decoder_id": decoder_id.hex() if decoder_id else None,
                "missing_files": list(state.missing_files),
                "folder": str(state.folder),
                "summary": state.summary,
            }
        )
    if as_json:
        print(json.dumps(records, indent=1))
        return
    for record in records:
        decoder = str(record["decoder_id"] or "-")[:16]
        print(
            f"{record['name']:<14}{record['state']:<20}{_sizes(record):>22}  "
            f"{decoder:<18}{record['summary']}"
        )


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A bundle that `list` shows, such as ffhq.")],
    accept_licence: Accept = False,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network.")] = False,
    keep_downloads: Annotated[
        bool, typer.Option("--keep-downloads", help="Keep the original files.")
    ] = False,
) -> None:
    """Download, check and convert a bundle. Interrupted downloads continue."""
    from sglat.bundles.catalogue import catalogue_bundle
    from sglat.bundles.download import DownloadConfig
    from sglat.bundles.store import FetchConfig, fetch_bundle

    config = FetchConfig(
        licence_accepted=accept_licence or _ask(catalogue_bundle(name).name),
        keep_downloads=keep_downloads,
        download=DownloadConfig(is_offline=offline),
    )
    state = fetch_bundle(name, config, progress=lambda label: ByteBar(label).show, say=say)
    print(state.folder)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Default: all that are here.")] = None,
) -> None:
    """Check every file's size and sha256 and every part's tensors."""
    from sglat.bundles.bundle import load_bundle
    from sglat.bundles.store import list_bundles

    wanted = names or [state.name for state in list_bundles() if state.manifest]
    for name in wanted:
        bundle = load_bundle(name)
        bundle.verify()
        decoder_id = bundle.manifest.decoder_id
        print(
            f"{name}: {len(bundle.manifest.parts)} files right, "
            f"decoder id {decoder_id.hex() if decoder_id else 'none'}"
        )


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help=".pt, .pth, .pkl, .zip or .safetensors")],
    name: Annotated[
        str | None, typer.Option("--name", help="Your own bundle; without it: a published file.")
    ] = None,
    paper_controls: Annotated[
        bool,
        typer.Option("--paper-controls", help="Use the paper's 32 channels (FFHQ 1024 px family)."),
    ] = False,
    accept_licence: Accept = False,
) -> None:
    """Check a file you brought, convert it to safetensors and put it into a bundle."""
    from sglat.bundles.store import identify_file, import_own, import_published

    if name is not None:
        state = import_own(file, name, has_paper_controls=paper_controls)
    else:
        bundle, _ = identify_file(file)
        accepted = accept_licence or _ask(bundle.name)
        state = import_published(file, licence_accepted=accepted)
    for missing in state.missing_files:
        say(f"still missing: {missing}")
    print(state.folder)


@app.command()
def keep(name: Annotated[str, typer.Argument()] = "mini") -> None:
    """Keep a bundle's weights, so that its files decode when a release brings others."""
    from sglat.bundles.store import keep_bundle

    print(keep_bundle(name))


@app.command()
def path(name: Annotated[str, typer.Argument()] = "mini") -> None:
    """Print the folder of a bundle that is here."""
    from sglat.bundles.bundle import load_bundle

    print(load_bundle(name).folder)


@app.command()
def remove(
    name: Annotated[str, typer.Argument()],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a fetched or imported bundle."""
    from sglat.bundles.store import bundle_state, remove_bundle

    if not yes and sys.stdin.isatty():
        size = _megabytes(bundle_state(name).size_bytes)
        typer.confirm(f"Delete bundle {name} ({size})?", abort=True, err=True)
    say(f"removed {remove_bundle(name)}")


@app.command()
def discover(
    name: Annotated[str, typer.Argument(help="A bundle, or a folder of one.")] = "mini",
    people: Annotated[int, typer.Option(min=1, help="Sampled people to try channels on.")] = 4,
    write: Annotated[
        bool, typer.Option("--write", help="Store the controls in the bundle; new decoder id.")
    ] = False,
) -> None:
    """Search a generator for 32 single channels that move one part of the face each."""
    from sglat.bitstream.channels import GROUPS
    from sglat.bundles.bundle import load_bundle
    from sglat.bundles.discover import DiscoverConfig, store_controls
    from sglat.bundles.discover import discover as search

    bundle = load_bundle(name)
    bar = StageBar(is_quiet=not sys.stderr.isatty())
    found = search(
        bundle,
        DiscoverConfig(people=people),
        progress=lambda done, total: bar("layers", done, total),
    )
    bar.close()
    for group, (layer, channel), locality, change in zip(
        GROUPS, found.channels, found.locality, found.sensitivity, strict=True
    ):
        print(f"{group:6} {layer}:{channel:<4} locality {locality:6.1f}  change {change:.4f}")
    if write:
        store_controls(bundle, found.controls)
        say(f"stored in {bundle.folder}")


def _list_files(name: str, *, as_json: bool) -> None:
    """Show everything the catalogue knows of a bundle's files."""
    from sglat.bundles.catalogue import LICENCES, catalogue_bundle

    records = []
    for file in catalogue_bundle(name).files:
        licence = LICENCES[file.licence]
        records.append(
            {
                "name": file.name,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "git_blob_sha1": file.git_blob_sha1,
                "evidence": file.evidence,
                "addresses": list(file.addresses),
                "by_hand": file.by_hand,
                "licence": f"{licence.name}: {licence.terms}; {licence.url}",
                "source": file.source,
                "preprocessing": file.preprocessing,
            }
        )
    if as_json:
        print(json.dumps(records, indent=1))
        return
    for record in records:
        for key, value in record.items():
            for line in value if isinstance(value, list) else [value]:
                print(
                    f"{'' if key == 'name' else '  '}{key}: {'unknown' if line is None else line}"
                )


def _sizes(record: dict[str, object]) -> str:
    """Return the size of what is here, and of what would be downloaded."""
    here, to_fetch = record["size_bytes"], record["download_bytes"]
    if not record["missing_files"]:
        return _megabytes(here)
    load = ("" if record["is_download_known"] else "over ") + _megabytes(to_fetch)
    return f"{load} to fetch" if not here else f"{_megabytes(here)}, {load} to fetch"


def _megabytes(size_bytes: object) -> str:
    """Return a size in MB for people."""
    return f"{int(str(size_bytes)) / 1e6:.1f} MB"


def _state_word(is_here: bool, missing: int) -> str:
    if not is_here:
        return "not here"
    return f"{missing} files missing" if missing else "complete"


def _ask(name: str) -> bool:
    """Show the licences not accepted yet; ask where somebody can answer."""
    from sglat.bundles.catalogue import LICENCES, catalogue_bundle
    from sglat.bundles.store import missing_licences

    bundle = catalogue_bundle(name)
    missing = missing_licences(bundle)
    for licence in missing:
        files = ", ".join(file.name for file in bundle.files if file.licence == licence)
        say(f"{files}\n  {LICENCES[licence].name}: {LICENCES[licence].terms}")
        say(f"  {LICENCES[licence].url}")
    if not missing or not sys.stdin.isatty():
        return not missing
    return typer.confirm("Do you accept these licences?", err=True)


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
