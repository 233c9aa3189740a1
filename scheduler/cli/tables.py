"""The look of all tables: aligned columns without lines, which grep and awk read as well."""

from __future__ import annotations

from rich.table import Table


def table(*columns: str) -> Table:
    """An empty table; cells that do not fit a terminal are folded, never cut."""
    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        grid.add_column(column.upper(), overflow="fold")
    return grid
