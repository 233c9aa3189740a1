"""A stage's rows: where they come from, how they are split into shards, how results are written, read and merged."""

from __future__ import annotations

from mloc_tasks.data.inputs import Inputs, RowSlice, open_inputs
from mloc_tasks.data.items import ItemReader, ItemWriter, Part
from mloc_tasks.data.merge import merge_shards
from mloc_tasks.data.slices import plan_slices

__all__ = ["Inputs", "ItemReader", "ItemWriter", "Part", "RowSlice", "merge_shards", "open_inputs", "plan_slices"]
