"""How a state looks."""

from __future__ import annotations

MARKS = {
    "queued": "·",
    "running": "▶",
    "done": "✔",
    "failed": "✘",
    "cancelled": "■",
    "skipped": "-",
    "cached": "✔",
    "released": "↻",
}

STYLES = {
    "queued": "dim",
    "running": "cyan",
    "done": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "skipped": "dim",
    "cached": "green",
    "released": "yellow",
}
