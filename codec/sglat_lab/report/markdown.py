"""One table of a report, for HTML and Markdown alike."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table; cells are text."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table as Markdown, notes below."""
        lines = [f"## {self.title}", ""]
        lines.append("| " + " | ".join(self.head) + " |")
        lines.append("|" + "---|" * len(self.head))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        lines += [""] + [part for note in self.notes for part in (note, "")]
        return "\n".join(lines)


def number(value: object, digits: int = 2) -> str:
    """Return a figure with some digits; a reason as it is; a dash for nothing."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:.{digits}f}"
    return "–" if value is None else str(value)
