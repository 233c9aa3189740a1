"""A stage's rows: where they come from, how they are split into shards, how results are written, read and merged."""
