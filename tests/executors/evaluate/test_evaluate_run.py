"""Scores in a workflow, through a real broker and worker: from an earlier stage's items to a later stage's message."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from scheduler import submit_yaml

WAIT_SEC = 60

pytestmark = pytest.mark.usefixtures("worker")


def scoring(gold: Path, *, shards: int = 1, cached: bool = False) -> dict[str, Any]:
    draft = {
        "name": "draft",
        "taskType": "echo",
        "data": {"prompts": [f"answer {number}" for number in range(6)]},
        "parallel": {"enabled": shards > 1, "maxShards": shards},
    }
    score = {
        "name": "score",
        "taskType": "evaluate",
        "data": {"type": "stage", "stage": "draft"},
        "evaluate": {
            "metrics": [{"type": "regex", "name": "number", "pattern": r"(\d+)"}],
            "references": {"type": "file", "url": str(gold)},
        },
    }
    end = {"name": "end", "taskType": "echo", "message": "${score.result.metrics.number}"}
    return {
        "apiVersion": "mloc/v1",
        "kind": "Workflow",
        "metadata": {"name": "scores"},
        "spec": {"cache": {"enabled": cached}, "stages": [draft, score, end]},
    }


def test_a_later_stage_reads_the_mean_of_sharded_answers(tmp_path: Path, results_dir: Path) -> None:
    gold = tmp_path / "gold.txt"
    gold.write_text("0\n1\n2\n0\n0\n0\n")
    run = submit_yaml(scoring(gold, shards=3))
    assert run.result(timeout=WAIT_SEC)["message"] == 0.5
    (table,) = (results_dir / run.id / "score").rglob("table.csv")
    with table.open(newline="") as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["1.0"] * 3 + ["0.0"] * 3


def test_other_references_are_scored_anew_also_where_results_are_cached(tmp_path: Path) -> None:
    gold = tmp_path / "gold.txt"
    means = []
    for content in ("0\n" * 6, "0\n" * 6, "x\n" * 6):
        gold.write_text(content)
        run = submit_yaml(scoring(gold, cached=True))
        means.append((run.result(timeout=WAIT_SEC)["message"], str(run.status().stages[1].state)))
    assert [mean for mean, _ in means] == [pytest.approx(1 / 6), pytest.approx(1 / 6), 0]
    assert [state for _, state in means] == ["done", "cached", "done"]


def test_a_wrong_number_of_references_fails_the_stage(tmp_path: Path) -> None:
    gold = tmp_path / "gold.txt"
    gold.write_text("0\n1\n")
    run = submit_yaml(scoring(gold))
    run.wait(WAIT_SEC)
    assert "2 references for 6 items" in str(run.status().stages[1].error)
