"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecFile = Annotated[
    Path, typer.Argument(metavar="SPEC", show_default=False, help="A YAML file, or `-` for standard input.")
]
SpecFiles = Annotated[
    list[Path], typer.Argument(metavar="SPEC...", show_default=False, help="YAML files, or `-` for standard input.")
]
RunId = Annotated[
    str,
    typer.Argument(metavar="RUN", show_default=False, help="A run's id, the beginning of one, or `last`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
StageName = Annotated[str | None, typer.Option("--stage", metavar="NAME", help="This stage only.")]
