"""Directories of a few bytes that stand for models, and a log that remembers."""

from __future__ import annotations

from pathlib import Path


class Lines(list[str]):
    """The lines of a log; call it to add one."""

    def __call__(self, message: str, *, level: str = "info") -> None:
        self.append(message)

    @property
    def fetches(self) -> int:
        """How often a fetch began."""
        return sum(line.startswith("fetching ") for line in self)


def filled(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


def names_below(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
