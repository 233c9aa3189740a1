"""The scores as tables: `table.csv` with a line for each row, `summary.md` with one for each metric."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mloc_tasks.executors.evaluate.scores import Mean, Name
from mloc_tasks.executors.evaluate.text import as_text

TABLE = "table.csv"
SUMMARY = "summary.md"


def write_table(path: Path, items: Iterable[Mapping[str, Any]], names: Sequence[Name]) -> None:
    """Columns: index, output, reference, error, then each score; UTF-8, a cell empty where an item has no value."""
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", "output", "reference", "error", *(".".join(name) for name in names)])
        for item in items:
            cells = [_cell(item.get(key)) for key in ("output", "reference", "error")]
            table.writerow([item["index"], *cells, *(_score(item.get("scores"), name) for name in names)])


def write_summary(path: Path, means: Mapping[Name, Mean], *, note: str) -> None:
    """A Markdown table of the means, and under it `note`."""
    lines = ["| metric | mean | standard error | rows |", "| --- | ---: | ---: | ---: |"]
    for name, mean in means.items():
        shown = f"{mean.mean:.4f}" if mean.count else ""
        stderr = "" if mean.stderr is None else f"{mean.stderr:.4f}"
        lines.append(f"| {'.'.join(name).replace('|', chr(92) + '|')} | {shown} | {stderr} | {mean.count} |")
    path.write_text("\n".join([*lines, "", note, ""]), encoding="utf-8")


def _cell(value: Any) -> str:
    return "" if value is None else as_text(value)


def _score(scores: Any, name: Name) -> Any:
    for step in name:
        scores = scores.get(step) if isinstance(scores, Mapping) else None
    return scores
