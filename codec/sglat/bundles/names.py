"""The names that a bundle has for its controls, read from its manifest without any weights."""

from __future__ import annotations

from sglat.bitstream.records import Header
from sglat.errors import BundleError


def control_names(header: Header) -> tuple[str, ...]:
    """Return the names of the 32 controls in a file's bundle; none if the bundle is not here."""
    from sglat.bundles.bundle import find_bundle
    from sglat.bundles.manifest import read_manifest

    try:
        manifest = read_manifest(find_bundle(header.bundle))
    except BundleError:
        return ()
    if manifest.decoder_id != header.decoder_id or "controls" not in manifest.parts:
        return ()
    names = manifest.parts["controls"].config.get("names", ())
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else ()
