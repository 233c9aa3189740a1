"""`embeddings.npy`: vectors written as they come, in NumPy's format, to be memory-mapped by whoever reads them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

if TYPE_CHECKING:
    from mloc_tasks.executors.embedding.encoder import Vectors

FILE = "embeddings.npy"


class VectorFile:
    """A float32 array of shape [rows, dimensions], written row after row.

    Not through a memory map: on a full disk that would end the process by a signal instead of an error.
    """

    def __init__(self, out_dir: Path, *, rows: int, dimensions: int) -> None:
        from numpy.lib.format import write_array_header_1_0

        self._file: BinaryIO = (out_dir / FILE).open("wb")
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimensions)}
        write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, vectors: Vectors) -> None:
        """Append rows, shape [any, dimensions]."""
        self._file.write(vectors.astype("<f4", copy=False).tobytes())
