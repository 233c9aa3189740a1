"""A document of 60 stages is read in no time, and nothing grows faster than the document."""

from __future__ import annotations

import time

from mloc_tasks.spec import load_workflow
from tests.spec.reading import HEAD, MODEL, problems_of


def _document(count: int) -> str:
    stages = [
        f"  - name: stage-{number}\n    taskType: inference\n    parallel: {{enabled: true, maxShards: 8}}\n"
        f"    inference: {{max_tokens: 32, topP: 0.9, prompts: [hello {number}"
        + (f", '${{stage-{number - 1}.result.items[0].output}}'" if number else "")
        + "]}\n"
        for number in range(count)
    ]
    return f"{HEAD}spec:\n{MODEL}  resources: {{hardware: {{cpu: 8, gpu: {{count: 1}}}}}}\n  stages:\n" + "".join(
        stages
    )


def _seconds(text: str | bytes) -> float:
    start = time.process_time()
    problems_of(text)
    return time.process_time() - start


def test_sixty_stages() -> None:
    assert len(load_workflow(_document(60)).stages) == 60
    assert min(_seconds(_document(60)) for _ in range(10)) < 0.05


def test_two_thousand_stages() -> None:
    assert _seconds(_document(2_000)) < 3


def test_documents_of_nothing_but_mistakes() -> None:
    training = "".join(f"    lerning_rate{number}: 1\n" for number in range(20_000))
    stages = "".join(f"  - {{name: a{number}, taskType: ecko, dependsOn: [b{number}]}}\n" for number in range(1_900))
    assert _seconds(f"{HEAD}spec:\n{MODEL}  taskType: sft\n  training:\n{training}") < 3
    assert _seconds(f"{HEAD}spec:\n  stages:\n{stages}") < 3


def test_documents_at_the_limit() -> None:
    for piece in (
        "- x\n",
        "{a: [",
        "? a\n",
        "a: 1\n",
        "- - -\n",
        "'x' ",
        "*a ",
        "&a ",
        "#",
        "|\n ",
        "!!str ",
        "${a.b} ",
        "${",
    ):
        assert _seconds(piece * (2**20 // len(piece))) < 5
        assert _seconds(f"{HEAD}spec: {{taskType: echo, message: '{piece.strip() * 100_000}'}}"[: 2**20]) < 5
