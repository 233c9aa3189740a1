"""Writes docs/configuration.md from the settings class, so that the two cannot differ (a test compares them)."""

from __future__ import annotations

from pathlib import Path

from scheduler.cli.settings_table import variables

DOCUMENT = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Clients and workers read these environment variables; empty means unset. This page is made from
`mloc_tasks/settings.py` by `scripts/configuration_table.py`. `mloc doctor --settings` shows the values that hold here.

| variable | default | meaning |
| --- | --- | --- |
"""


def document() -> str:
    """The page's text."""
    rows = [f"| `{each.name}` | `{each.default}` | {each.meaning} |" for each in variables()]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
