"""Makes the test vectors and their manifest, and never changes a released one.

    python format_spec/make_vectors.py            make new and unreleased vectors python
    format_spec/make_vectors.py --check    compare everything with what is there, write nothing
    python format_spec/make_vectors.py --release  make, then mark every vector as released

A released vector is a promise: files like it exist. If this script would make other bytes for one,
or no longer makes it, it stops with exit status 1 and writes nothing. There is no switch to
override that; a changed format gets new vectors and a new version.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import vector_files  # noqa: E402

FOLDERS = {
    "valid": vector_files.VALID,
    "unusual": vector_files.UNUSUAL,
    "invalid": vector_files.INVALID,
}
WITHDRAWN = {"invalid/newer-version.sglat"}  # asked for a reader of 1.1, which there is now
INLINE_FRAMES = 20  # motions up to this length stand in the manifest number by number


def sha256(data: bytes) -> str:
    """Return a hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def integers_sha256(values: Any) -> str:
    """Return the SHA-256 of integers as i32 little-endian."""
    return sha256(np.asarray(values).astype("<i4").tobytes())


def expectation(vector: vector_files.Vector) -> dict[str, Any]:
    """Return what reading the file must give, from the numbers the file was made of."""
    if vector.code is not None:
        expected: dict[str, Any] = {"error": vector.code}
        if vector.offset is not None:
            expected["offset"] = vector.offset
        return expected | vector.extra
    assert vector.motion is not None
    expected = {"frames": len(vector.motion), "motion_sha256": integers_sha256(vector.motion)}
    if len(vector.motion) <= INLINE_FRAMES:
        expected["motion"] = vector.motion.tolist()
    extra = dict(vector.extra)
    if "layers" in extra:
        extra["layers"] = [[np.asarray(e).tolist() for e in layer] for layer in extra["layers"]]
    if "placement" in extra:
        extra["placement"] = [None if p is None else p.tolist() for p in extra["placement"]]
    if "packets" in extra:
        packets = extra.pop("packets")
        extra["audio_packets"] = len(packets)
        extra["audio_sha256"] = sha256(b"".join(packets))
    return expected | extra


def make() -> tuple[dict[str, bytes], dict[str, dict[str, Any]]]:
    """Return all files and their manifest entries, by relative path."""
    files, entries = {}, {}
    for folder, functions in FOLDERS.items():
        for name, function in functions.items():
            vector = function()
            path = f"{folder}/{name}.sglat"
            files[path] = vector.data
            entries[path] = {
                "what": vector.what,
                "bytes": len(vector.data),
                "sha256": sha256(vector.data),
                "made_by": f"vector_files.{function.__name__}",
                "expect": expectation(vector),
            }
    return files, entries


def broken_promises(old: dict[str, Any], entries: dict[str, dict[str, Any]]) -> list[str]:
    """Return what would change about released vectors."""
    wrong = []
    for path, entry in old.items():
        if not entry["released"]:
            continue
        now = entries.get(path)
        if now is None and path in WITHDRAWN:
            continue
        if now is None:
            wrong.append(f"{path}: released, but no longer made")
        elif now["sha256"] != entry["sha256"]:
            wrong.append(f"{path}: released, but other bytes would be written")
        elif now["expect"] != entry["expect"]:
            wrong.append(f"{path}: released, but another result would be expected")
    return wrong


def stored_differences(root: Path, entries: dict[str, dict[str, Any]]) -> list[str]:
    """Return where the files on disk are not those of the entries."""
    wrong = []
    for path, entry in entries.items():
        file = root / path
        if not file.is_file():
            wrong.append(f"{path}: missing")
        elif sha256(file.read_bytes()) != entry["sha256"]:
            wrong.append(f"{path}: other bytes on disk")
    known = {root / path for path in entries}
    wrong += [
        f"{f.relative_to(root)}: not in the manifest"
        for f in root.rglob("*.sglat")
        if f not in known
    ]
    return wrong


def manifest_text(entries: dict[str, dict[str, Any]]) -> str:
    """Return the manifest: one vector a line, sorted, so that a change shows as one line."""
    lines = [
        f"  {json.dumps(path)}: {json.dumps(entries[path], sort_keys=True)}"
        for path in sorted(entries)
    ]
    return '{\n "format": "sglat 1.1",\n "vectors": {\n' + ",\n".join(lines) + "\n }\n}\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="make the test vectors of the .sglat format")
    parser.add_argument("--root", type=Path, default=HERE / "vectors", help="folder of the vectors")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--release", action="store_true", help="mark all vectors as released")
    options = parser.parse_args(arguments)
    manifest = options.root / "manifest.json"
    old = json.loads(manifest.read_text("utf-8"))["vectors"] if manifest.exists() else {}
    files, entries = make()
    wrong = broken_promises(old, entries)
    for path, entry in entries.items():
        entry["released"] = options.release or old.get(path, {}).get("released", False)
    if options.check:
        wrong += stored_differences(options.root, entries)
        if old != json.loads(manifest_text(entries))["vectors"]:
            wrong.append("manifest.json: not what would be written")
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    if not options.check:
        for path, data in files.items():
            file = options.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        for stale in [path for path in old if path not in entries]:
            (options.root / stale).unlink(missing_ok=True)
        manifest.write_text(manifest_text(entries), "utf-8")
    print(f"{len(entries)} vectors, {sum(map(len, files.values()))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
