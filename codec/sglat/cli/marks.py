"""`sgl-marks`: make a key for signing, and check the marks of any file."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sglat.cli.common import new_app, printable, run, say

if TYPE_CHECKING:
    from sglat.marks.check import Report
    from sglat.marks.provenance import Signature

app = new_app("Sign generated media, and check marks of any file.", has_subcommands=True)
WIDTH = 10


@app.command()
def init(
    name: Annotated[
        str, typer.Argument(help="Your name or that of your studio, as others see it.")
    ],
    days: Annotated[int, typer.Option(min=1, max=36500, help="Days until it expires.")] = 3650,
    force: Annotated[bool, typer.Option("--force", help="Replace an older key.")] = False,
) -> None:
    """Make a self-signed key; sgl-encode, sgl-swap and sgl-decode then sign with it."""
    from sglat.marks.keys import CERTIFICATE_NAME, KEY_NAME, config_folder, make_signer

    signer = make_signer(name, days=days, force=force)
    folder = config_folder()
    say(f"key: {folder / KEY_NAME}; keep it to yourself")
    say(f"certificate: {folder / CERTIFICATE_NAME}; give it to those who check with --trust")
    say(
        f"signs as {printable(signer.title)} until {signer.expires:%Y-%m-%d}: it proves that one "
        "key signed, not whose it is"
    )


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A video, a picture or a .sglat file.")],
    trust: Annotated[
        Path | None, typer.Option(help="PEM file with certificates of signers you know.")
    ] = None,
    watermark: Annotated[
        bool, typer.Option("--watermark/--no-watermark", help="Search the pictures.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show who signed a file, whether that holds, its watermark and its tags.

    Status: 0 marked, all holds; 3 no mark; 4 a mark does not hold; 5 not checked for want of a
    library; 1 the file cannot be read.
    """
    from sglat.marks.check import EXIT_STATUS, to_json
    from sglat.marks.check import check as check_file
    from sglat.marks.keys import load_trust

    report = check_file(file, trust=load_trust(trust), has_watermark=watermark)
    if as_json:
        print(json.dumps(to_json(report), indent=1, ensure_ascii=False))
    else:
        print(table(report))
    sys.exit(EXIT_STATUS[report.verdict])


def table(report: Report) -> str:
    """Return a report for people."""
    rows = [
        ("", f"{report.path}: {headline(report)}"),
        *_manifest_rows(report),
        *_provenance_rows(report),
        *_watermark_rows(report),
        *_tag_rows(report),
    ]
    if report.damage:
        rows.append(("damage", report.damage))
    lines = [
        f"{name:<{WIDTH}} {printable(value)}" if name else printable(value) for name, value in rows
    ]
    return "\n".join(lines)


def headline(report: Report) -> str:
    """Return the result in one line."""
    kind = "marked as generated" if report.is_generated else "not marked as generated"
    return {
        "holds": f"{kind}; {'every signature holds' if report.is_signed else 'nothing is signed'}",
        "unmarked": "no mark found, which proves nothing: marks can be removed",
        "broken": f"{kind}; A MARK DOES NOT HOLD: the file was changed since, or is damaged",
        "unchecked": f"{kind}; a signature could not be checked here",
    }[report.verdict]


def _manifest_rows(report: Report) -> list[tuple[str, str]]:
    found = report.manifest
    if found.state == "none":
        if report.provenance is not None:
            return []
        remote = report.tags.remote
        elsewhere = f"none in the file; one may be at {remote}, which is not fetched"
        return [("C2PA", elsewhere if remote else "none")]
    if found.state == "unchecked":
        return [("C2PA", f"found, not checked: {found.faults[0]}")]
    signer = f"signed by {_named(found.signer, found.issuer)}" if found.signer else "manifest"
    states = {
        "trusted": f"{signer}, whose certificate you know: holds",
        "valid": f"{signer}: holds; nobody here vouches for that name",
        "broken": f"{signer}: DOES NOT HOLD",
    }
    rows = [("C2PA", states[found.state])]
    rows += [("  fault", fault) for fault in found.faults[:4]]
    if found.generators:
        kinds = ", ".join(found.source_types) or "no source type"
        rows.append(("  made", f"by {', '.join(found.generators)}, {kinds}"))
    if found.actions:
        rows.append(("  actions", ", ".join(found.actions)))
    rows += [("  from", name) for name in found.ingredients]
    if consent := found.facts.get("consent"):
        rows.append(("  consent", consent))
    elif found.facts:
        rows.append(("  consent", "no statement"))
    if kind := found.facts.get("source_type"):
        rows.append(("  source", f"was itself tagged {kind}"))
    if mark := found.facts.get("source_watermark"):
        rows.append(("  source", f"carried the watermark with id {mark}"))
    if label := found.facts.get("label"):
        rows.append(("  label", label))
    if when := found.facts.get("time"):
        rows.append(("  time", f"{when}, by the signer's clock"))
    if found.label:
        rows.append(("  id", found.label))
    return rows


def _named(signer: str, issuer: str) -> str:
    if issuer in ("", signer):
        return signer
    return issuer if issuer == f"{signer} (self-signed)" else f"{signer}, certificate for {issuer}"


def _provenance_rows(report: Report) -> list[tuple[str, str]]:
    from sglat.marks.label import wanted_label

    found = report.provenance
    if found is None:
        return []
    if found.record is None:
        return [("record", "none: the file does not say who made it")]
    record = found.record
    rows = [
        ("record", _signed(report, found.signature, is_covered=found.is_covered)),
        ("  made", f"by {record.generated_by}" if record.generated_by else "by an unnamed program"),
        ("  consent", record.consent or "no statement"),
    ]
    if record.source_sha256:
        rows.append(("  source", f"SHA-256 {record.source_sha256.hex()[:16]}…"))
    if kind := record.extra.get("source_type"):
        rows.append(("  source", f"was itself tagged {kind}"))
    if isinstance(mark := record.extra.get("source_watermark"), bytes):
        rows.append(("  source", f"carried the watermark with id {mark.hex()[:16]}"))
    if "c2pa" in record.extra or "c2pa_sha256" in record.extra:
        rows.append(("  source", "had a C2PA manifest, which is kept"))
    if label := wanted_label(record.extra):
        rows.append(("  label", label))
    if record.note:
        rows.append(("  note", record.note))
    for origin in found.origins:
        role = "look from" if origin.role == "look" else "motion from"
        if origin.record is None:
            rows.append((f"  {role}", f"a record with SHA-256 {origin.sha256[:16]}…, not kept"))
            continue
        consent = origin.record.consent or "no consent statement"
        note = f"; {origin.record.note}" if origin.record.note else ""
        signed = _signed(report, origin.signature)
        rows.append((f"  {role}", f"{signed}; consent: {consent}{note}"))
    return rows


def _signed(report: Report, signature: Signature, *, is_covered: bool = True) -> str:
    if signature.state == "none":
        return "unsigned"
    who = f"signed by {signature.signer or 'somebody'} (key {signature.key.hex()[:16]}…)"
    if signature.time is not None:
        who += f" on {datetime.fromtimestamp(signature.time, UTC):%Y-%m-%d}"
    if signature.state == "unchecked":
        return f"{who}, not checked: install sglat[c2pa]"
    if signature.state == "broken":
        return f"{who}: DOES NOT HOLD"
    if not is_covered:
        return f"{who}: holds, BUT NOT FOR THIS FILE, which was edited since"
    known = "a key you know" if report.is_known(signature) else "nobody here vouches for that name"
    return f"{who}: holds; {known}"


def _watermark_rows(report: Report) -> list[tuple[str, str]]:
    found, named = report.watermark, report.named_watermark
    if report.provenance is not None:
        return [("watermark", f"id {named} in pictures decoded from this file")]
    if found is None:
        return [("watermark", "not searched")]
    if not found.found or found.id is None:
        said = f"; the file names {named}" if named else f"; {report.said_of_watermark}"
        return [("watermark", f"not found{said.rstrip('; ')}")]
    line = f"found, id {found.id.hex()}, confidence {found.confidence:.2%}"
    match report.is_named_watermark:
        case True:
            line += "; the file names the same"
        case False:
            line += f"; THE FILE NAMES ANOTHER: {named}"
    return [("watermark", line)]


def _tag_rows(report: Report) -> list[tuple[str, str]]:
    tags = report.tags
    if report.provenance is not None:
        return []
    rows = []
    if tags.is_empty:
        rows.append(("tags", "none"))
    else:
        parts = [*tags.source_types, f"by {tags.generated_by}" if tags.generated_by else ""]
        places = f" (in {', '.join(tags.places)}; unsigned)" if tags.places else ""
        rows.append(("tags", ", ".join(part for part in parts if part) + places))
    if tags.label:
        rows.append(("  label", tags.label))
    rows += [("  fault", fault) for fault in tags.faults]
    return rows


def main() -> None:
    """Run `sgl-marks`."""
    run(app)


if __name__ == "__main__":
    main()
