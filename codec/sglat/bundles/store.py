"""The cache folder: listing, fetching, importing and removing bundles, and accepted licences."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from sglat.bundles.bundle import (
    EMBEDDED,
    EMBEDDED_FOLDER,
    bundles_folder,
    home_folder,
    load_bundle,
)
from sglat.bundles.catalogue import (
    BUNDLES,
    LICENCES,
    CatalogueBundle,
    CatalogueFile,
    catalogue_bundle,
    find_file,
)
from sglat.bundles.convert import (
    Part,
    add_parts,
    convert_checkpoint,
    keep_as_is,
    paper_controls,
    unpack,
)
from sglat.bundles.download import (
    DownloadConfig,
    Progress,
    check_download,
    download,
    hash_download,
)
from sglat.bundles.manifest import MANIFEST_NAME, Manifest, read_manifest
from sglat.errors import BundleError, DownloadError, UsageError
from sglat.files import check_input, write_atomically
from sglat.networks.stylespace import GeneratorConfig

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """How to fetch a bundle."""

    licence_accepted: bool = False
    """All licences of the bundle are accepted herewith."""
    keep_downloads: bool = False
    """Keep the original files after their conversion."""
    download: DownloadConfig = field(default_factory=DownloadConfig)


@dataclass(frozen=True, kw_only=True)
class BundleState:
    """One line of `sgl-bundles list`."""

    name: str
    summary: str
    folder: Path
    manifest: Manifest | None
    """None: nothing of it is here."""
    missing_files: tuple[str, ...]
    """Files of the catalogue that are missing here."""

    @property
    def size_bytes(self) -> int:
        """Size of all files that are here."""
        parts = self.manifest.parts.values() if self.manifest else ()
        return sum(part.size_bytes for part in parts)

    @property
    def download_bytes(self) -> int:
        """Size of the files that `sgl-bundles fetch` would download, as far as it is known."""
        files = BUNDLES[self.name].files if self.name in BUNDLES else ()
        return sum(file.size_bytes or 0 for file in files if file.name in self.missing_files)

    @property
    def is_download_known(self) -> bool:
        """Whether the sizes of all missing files are known."""
        files = BUNDLES[self.name].files if self.name in BUNDLES else ()
        return all(file.size_bytes for file in files if file.name in self.missing_files)


def list_bundles() -> list[BundleState]:
    """Return the embedded bundle, those of the catalogue and one's own."""
    names = [EMBEDDED, *BUNDLES]
    if bundles_folder().is_dir():
        own = {path.parent.name for path in bundles_folder().glob(f"*/{MANIFEST_NAME}")}
        names.extend(sorted(own - set(names)))
    return [bundle_state(name) for name in names]


def bundle_state(name: str) -> BundleState:
    """Return a bundle's files and parts in the cache."""
    folder = EMBEDDED_FOLDER if name == EMBEDDED else bundles_folder() / name
    manifest = read_manifest(folder) if (folder / MANIFEST_NAME).is_file() else None
    summary = "embedded: to 512 px, needs no download" if name == EMBEDDED else "imported"
    missing: tuple[str, ...] = ()
    if name in BUNDLES:
        summary = BUNDLES[name].summary
        missing = tuple(f.name for f in BUNDLES[name].files if not _is_here(f, manifest))
    return BundleState(
        name=name, summary=summary, folder=folder, manifest=manifest, missing_files=missing
    )


def missing_licences(bundle: CatalogueBundle) -> list[str]:
    """Return the names of the bundle's licences that were not accepted on this machine yet."""
    accepted = _accepted_licences()
    return sorted({file.licence for file in bundle.files} - accepted)


def check_licences(bundle: CatalogueBundle, *, is_accepted: bool) -> None:
    """Remember that the bundle's licences are accepted; raises DownloadError if they are not."""
    missing = missing_licences(bundle)
    if missing and not is_accepted:
        names = "; ".join(f"{LICENCES[name].name} ({LICENCES[name].url})" for name in missing)
        raise DownloadError("licence", f"not accepted yet: {names}; see --accept-licence")
    path = _licence_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(sorted(_accepted_licences() | set(missing))) + "\n")


def fetch_bundle(
    name: str,
    config: FetchConfig | None = None,
    *,
    progress: Callable[[str], Progress] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> BundleState:
    """Download, check and convert everything of a bundle that is not here yet.

    Args:
        name: a bundle of the catalogue.
        config: licences, retries, timeouts.
        progress: returns the callback for a file's name.
        say: takes lines of text to print.

    Raises:
        BundleError: unknown bundle, or a file that does not hold what it should.
        DownloadError: licence not accepted, a file that cannot be fetched, or one that its
            publisher offers in a browser only; the message is the remedy.
    """
    config = config or FetchConfig()
    bundle = catalogue_bundle(name)
    check_licences(bundle, is_accepted=config.licence_accepted)
    with _locked(name, config.download.lock_seconds):
        failures = _fetch_missing(bundle, config, progress, say)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        for failure in failures:
            say(str(failure))
        raise DownloadError(
            "incomplete", f"{name}: {len(failures)} of {len(bundle.files)} files are missing"
        )
    return bundle_state(name)


def import_published(path: Path, *, licence_accepted: bool = False) -> BundleState:
    """Check a file of the catalogue that was brought by hand, convert it, put it into its bundle.

    Raises:
        BundleError: unreadable, or no file of the catalogue.
        DownloadError: a catalogue file's name with other content, or a licence not accepted.
    """
    bundle, file = identify_file(path)
    check_licences(bundle, is_accepted=licence_accepted)
    with _locked(bundle.name):
        _add_file(bundle, file, path)
    return bundle_state(bundle.name)


def identify_file(path: Path) -> tuple[CatalogueBundle, CatalogueFile]:
    """Find a file in the catalogue by its hash; raises BundleError, DownloadError."""
    check_input(path)
    sha256, blob = hash_download(path)
    found = find_file(sha256, blob)
    if found is not None:
        return found
    for bundle in BUNDLES.values():
        for file in bundle.files:
            if file.name == path.name:
                check_download(path, file, name=path.name)
    raise BundleError(
        "unknown-file",
        f"{path.name}: sha256 {sha256} is no file of the catalogue; "
        "give a checkpoint of your own a --name",
    )


def import_own(path: Path, name: str, *, has_paper_controls: bool = False) -> BundleState:
    """Convert a checkpoint and put it into a bundle of one's own.

    Args:
        path: any checkpoint that `convert_checkpoint` reads; several files may go into one bundle.
        name: the bundle's name.
        has_paper_controls: give the bundle the 32 channels of the paper's table 1.

    Raises:
        BundleError: unreadable, unknown or unfitting file.
        UsageError: a name that belongs to a published bundle.
    """
    check_input(path)
    if not _NAME.fullmatch(name):
        raise UsageError("bad-name", f"expected a name like my-bundle, got {name!r:.80}")
    if name == EMBEDDED or name in BUNDLES:
        raise UsageError(
            "taken-name", f"{name!r} is a published bundle; choose another name for your own"
        )
    parts = convert_checkpoint(path)
    if has_paper_controls:
        parts.append(paper_controls(_generator_config(parts, path)))
    sha256, _ = hash_download(path)
    source = f"{path.name}, sha256 {sha256}"
    folder = bundles_folder() / name
    with _locked(name):
        add_parts(folder, parts, name=name, licence="as the file's", source=source)
    return bundle_state(name)


def keep_bundle(name: str = EMBEDDED) -> Path:
    """Copy a bundle beside the others under a name of its own, and return the folder.

    Files made with it then decode with later releases, whose bundle of that name has other weights.
    """
    bundle = load_bundle(name)
    ids = [bundle.decoder_id, bundle.at(bundle.rungs[-1]).upper_id]
    version = "-".join(digest.hex()[:8] for digest in ids if digest is not None)
    folder = bundles_folder() / f"{bundle.name}.{version}"
    with _locked(folder.name):
        if not (folder / MANIFEST_NAME).is_file():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(bundle.folder, partial)
            partial.rename(folder)
    return folder


def remove_bundle(name: str) -> Path:
    """Delete a bundle's folder and return its path; raises BundleError, UsageError."""
    if name == EMBEDDED:
        raise UsageError("embedded", f"{EMBEDDED!r} is part of the program and cannot be removed")
    folder = bundles_folder() / name
    if not _NAME.fullmatch(name) or not (folder / MANIFEST_NAME).is_file():
        raise BundleError("unknown-bundle", f"no bundle {name!r:.80} in {bundles_folder()}")
    with _locked(name):
        shutil.rmtree(folder)
    return folder


def _fetch_missing(
    bundle: CatalogueBundle,
    config: FetchConfig,
    progress: Callable[[str], Progress] | None,
    say: Callable[[str], None],
) -> list[DownloadError]:
    """Fetch missing files; one file's failure does not stop the others."""
    failures = []
    manifest = bundle_state(bundle.name).manifest
    for file in bundle.files:
        if _is_here(file, manifest):
            continue
        try:
            _fetch_file(bundle, file, config, progress, say)
        except DownloadError as error:
            failures.append(_with_remedy(file, error))
    return failures


@contextmanager
def _locked(name: str, seconds: float = 3600.0) -> Iterator[None]:
    """Keep other processes from changing the same bundle."""
    path = bundles_folder() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=seconds):
            yield
    except Timeout as error:
        raise DownloadError(
            "locked", f"bundle {name}: another process has held it for {seconds:.0f} s"
        ) from error


def _fetch_file(
    bundle: CatalogueBundle,
    file: CatalogueFile,
    config: FetchConfig,
    progress: Callable[[str], Progress] | None,
    say: Callable[[str], None],
) -> None:
    target = home_folder() / "downloads" / file.name
    say(f"{file.name}: {file.source}; {LICENCES[file.licence].name}")
    download(
        file.addresses,
        target,
        file,
        config=config.download,
        progress=progress(file.name) if progress else None,
    )
    _add_file(bundle, file, target)
    if not config.keep_downloads:
        target.unlink()


def _add_file(bundle: CatalogueBundle, file: CatalogueFile, path: Path) -> None:
    """Convert a checked file of the catalogue."""
    folder = bundles_folder() / bundle.name
    source = _source_of(file)
    if file.content == "onnx_pack":
        unpack(path, file, folder, name=bundle.name, source=source)
    elif file.content == "as_is":
        keep_as_is(path, file, folder, name=bundle.name, source=source)
    else:
        parts = convert_checkpoint(path)
        if bundle.name == "ffhq" and any(part.role == "generator" for part in parts):
            parts.append(paper_controls(_generator_config(parts, path)))
        licence = LICENCES[file.licence].name
        add_parts(folder, parts, name=bundle.name, licence=licence, source=source)


def _with_remedy(file: CatalogueFile, error: DownloadError) -> DownloadError:
    """Add how to download the file by hand."""
    if not file.by_hand or error.code in ("offline", "no-space", "locked"):
        return error
    size = f"{file.size_bytes} bytes, " if file.size_bytes else ""
    return DownloadError(
        error.code,
        f"{error.message}; get {file.name} ({size}sha256 {file.sha256}) from {file.by_hand} "
        f"and run: sgl-bundles import {file.name}",
    )


def _is_here(file: CatalogueFile, manifest: Manifest | None) -> bool:
    source = _source_of(file)
    return manifest is not None and any(p.source == source for p in manifest.parts.values())


def _source_of(file: CatalogueFile) -> str:
    """Return the `source` of a part made from a file of the catalogue."""
    checked = f"sha256 {file.sha256}" if file.sha256 else f"git blob {file.git_blob_sha1}"
    return f"{file.name}, {checked}, {file.source}"


def _generator_config(parts: list[Part], path: Path) -> GeneratorConfig:
    for part in parts:
        if part.role == "generator":
            return GeneratorConfig.from_json(part.config)
    raise BundleError("no-generator", f"{path.name}: expected a generator for the paper's controls")


def _licence_file() -> Path:
    return home_folder() / "licences.json"


def _accepted_licences() -> set[str]:
    try:
        names = json.loads(_licence_file().read_text())
    except (OSError, ValueError):
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
