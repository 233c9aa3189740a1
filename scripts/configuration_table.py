"""Writes docs/configuration.md from the settings class, so that the two cannot differ (a test compares them)."""

from __future__ import annotations

from pathlib import Path

from pydantic_core import PydanticUndefined

from mloc_tasks.settings import Settings

DOCUMENT = Path(__file__).parents[1] / "docs" / "configuration.md"


def table() -> str:
    """The document's text."""
    lines = [
        "# Configuration",
        "",
        "Clients and workers read these environment variables. Empty means unset. Made from `mloc_tasks/settings.py` by",
        "`scripts/configuration_table.py`; `mloc doctor --settings` shows the values that hold here.",
        "",
        "| variable | default | meaning |",
        "| --- | --- | --- |",
    ]
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        names = alias.choices if alias is not None and not isinstance(alias, str) else [alias]  # type: ignore[union-attr]
        default = "" if field.default in (None, "", (), PydanticUndefined) else f"`{field.default}`"
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(table(), encoding="utf-8")
