"""Writes info.schema.json, the JSON schema of `sgl-info --json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEX64 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
NUMBER = {"type": "number"}
FLAG = {"type": "boolean"}


def thing(properties: dict[str, Any]) -> dict[str, Any]:
    """Return an object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def maybe(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def table_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return an object with any keys."""
    return {"type": "object", "additionalProperties": schema}


PICTURE = thing({"media_type": TEXT, "bytes": COUNT})
LAYER = thing(
    {
        "number": COUNT,
        "bytes": COUNT,
        "kind": {"enum": ["latent", "weights"]},
        "entries": COUNT,
        "integers": COUNT,
        "resolution": maybe(COUNT),
    }
)
MOTION = thing(
    {
        "frames": COUNT,
        "groups": COUNT,
        "duration_seconds": NUMBER,
        "frames_per_second": maybe(NUMBER),
        "is_constant_rate": FLAG,
        "bytes": COUNT,
        "bits_per_frame": NUMBER,
        "kilobits_per_second": maybe(NUMBER),
        "held_frames": COUNT,
        "cuts": COUNT,
        "placement_bytes": COUNT,
    }
)
AUDIO = thing(
    {
        "codec": TEXT,
        "sample_rate": COUNT,
        "channels": COUNT,
        "packets": COUNT,
        "bytes": COUNT,
        "duration_seconds": NUMBER,
    }
)
PROVENANCE = thing(
    {
        "generated_by": TEXT,
        "consent": TEXT,
        "note": TEXT,
        "source_sha256": {"type": "string", "pattern": "^([0-9a-f]{64})?$"},
        "edits": {"type": "array", "items": TEXT},
    }
)

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "sgl-info --json",
    "description": "What is in an .sglat file. A damaged file is described up to the damage.",
    **thing(
        {
            "schema": {"const": 1},
            "version": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+$"},
            "read_version": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+$"},
            "file_bytes": COUNT,
            "is_complete": FLAG,
            "is_verified": FLAG,
            "error": maybe(thing({"code": TEXT, "message": TEXT, "offset": maybe(COUNT)})),
            "decoder_id": HEX64,
            "bundle": TEXT,
            "resolution": COUNT,
            "latent_shape": {"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2},
            "encoder": TEXT,
            "settings": table_of(TEXT),
            "time_base": {"type": "string", "pattern": "^[0-9]+(/[0-9]+)?$"},
            "source_size": maybe({"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2}),
            "identity": thing(
                {
                    "sha256": maybe(HEX64),
                    "bytes": COUNT,
                    "layers": {"type": "array", "items": LAYER},
                    "reference": maybe(thing({"sha256": HEX64, "hint": TEXT})),
                }
            ),
            "motion": maybe(MOTION),
            "motion_sha256": maybe(HEX64),
            "audio": maybe(AUDIO),
            "plate": maybe(PICTURE),
            "thumbnail": maybe(PICTURE),
            "provenance": maybe(PROVENANCE),
            "metadata": table_of(TEXT),
            "container_bytes": COUNT,
            "chunks": table_of(thing({"count": COUNT, "bytes": COUNT})),
            "unknown_chunks": {"type": "array", "items": TEXT},
        }
    ),
}


def main() -> None:
    """Write the schema beside this script."""
    target = Path(__file__).with_name("info.schema.json")
    target.write_text(json.dumps(SCHEMA, indent=1) + "\n")


if __name__ == "__main__":
    main()
