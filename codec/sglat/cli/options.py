"""Options of the commands that encode; apart from what all commands share, since typer takes longer
to import than `sgl-info` takes to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Consent = Annotated[
    str, typer.Option(help="The pictured person's statement of consent, kept in the file.")
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or mps; cuda and mps are untested on hardware.")
]
Threads = Annotated[int, typer.Option(min=0, help="Processor threads; 0: all.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
WorkFolder = Annotated[
    Path | None, typer.Option(help="Folder for unfinished work; default: beside the output.")
]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Continue unfinished work.")]
