"""A PPO stage from its spec to its files, on a tiny model: whole, killed, from an adapter, on two processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import ExecutionError, InputError, ModelError
from mloc_tasks.executors.base import Task

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from mloc_tasks.executors.ppo import PpoExecutor  # noqa: E402
from mloc_tasks.executors.ppo.policy import Policy, Text  # noqa: E402
from mloc_tasks.executors.training.loading import load_for_training  # noqa: E402
from mloc_tasks.models.contents import PPO_STATE  # noqa: E402
from tests.executors.ppo.reward_models import save_classifier  # noqa: E402
from tests.executors.training.tiny_model import make_tiny_model  # noqa: E402
from tests.executors.training.training_tasks import heard, training_task  # noqa: E402

ROWS = [{"prompt": f"Say {word}."} for word in ("red", "blue", "green", "one", "two")]
TRAINING = {"batch_size": 6, "steps": 5, "learning_rate": 0.01, "save_freq": 2, "seed": 3}
FUNCTION = {"type": "function", "identifier": f"{__name__}:vowels"}


def vowels(prompts: list[str], completions: list[str]) -> list[float]:
    return [sum(letter in "aeiou" for letter in text) / 4 for text in completions]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def ppo_task(model: Path, rows: list[dict[str, Any]] = ROWS, **more: Any) -> Task:
    training = {**TRAINING, **more.pop("training", {})}
    return training_task(
        model,
        rows,
        task_type="ppo",
        training=training,
        **{"reward_model": FUNCTION, "generation": {"max_tokens": 8}, **more},
    )


def run(task: Task, out_dir: Path) -> dict[str, Any]:
    out_dir.mkdir()
    return PpoExecutor().train(task, out_dir)


def metrics(out_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]


class Killed(BaseException):
    pass


def killed_at(task: Task, step: int, out_dir: Path) -> Path:
    """Run until `step` is done; gives the newest checkpoint."""
    record = heard(task).metrics

    def metrics(at: int, values: dict[str, float]) -> None:
        record(at, values)
        if at == step:
            raise Killed

    heard(task).metrics = metrics  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run(task, out_dir)
    assert task.checkpoint_dir is not None
    return max(path for path in task.checkpoint_dir.iterdir() if not path.name.startswith("."))


def test_a_stage_reports_its_steps_and_leaves_a_model(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    task = ppo_task(model)
    result = run(task, tmp_path / "out")
    assert result["ok"]
    assert result["steps"] == 5
    assert [step for step, _ in heard(task).measured] == [0, 1, 2, 3, 4]
    assert heard(task).steps[-1] == (5, 5)
    first = metrics(tmp_path / "out")[0]
    assert heard(task).lines()[0].startswith(f"PPO Step 0/5: mean_reward={first['mean_reward']:.4f}")
    assert first["kl"] == pytest.approx(0, abs=1e-4)
    assert {"loss", "policy_loss", "value_loss", "entropy", "clip_fraction", "approx_kl", "kl_coef"} <= first.keys()
    assert result["metrics"]["mean_reward"] == metrics(tmp_path / "out")[-1]["mean_reward"]
    assert result["performance"]["tokens_per_sec"] > 0
    AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "final_model")
    assert AutoTokenizer.from_pretrained(tmp_path / "out" / "final_model").chat_template
    assert (tmp_path / "out" / "final_lora" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_killed_twice_and_resumed_it_measures_what_an_undisturbed_run_does(
    kind: str, model: Path, tmp_path: Path
) -> None:
    training = {"finetuning_type": kind, "steps": 6}
    run(ppo_task(model, training=training), tmp_path / "undisturbed")
    first = ppo_task(model, training=training, checkpoint_dir=tmp_path / "first")
    checkpoint = killed_at(first, 2, tmp_path / "out-1")
    assert checkpoint.name == "step-00000002"
    second = ppo_task(model, training=training, checkpoint_dir=tmp_path / "second", resume_from=checkpoint)
    checkpoint = killed_at(second, 4, tmp_path / "out-2")
    assert checkpoint.name == "step-00000004"
    third = ppo_task(model, training=training, checkpoint_dir=tmp_path / "third", resume_from=checkpoint)
    run(third, tmp_path / "out-3")
    assert [step for step, _ in heard(third).measured] == [4, 5]
    assert (tmp_path / "out-3" / "metrics.jsonl").read_text() == (tmp_path / "undisturbed/metrics.jsonl").read_text()
    weights = "final_lora/adapter_model.safetensors" if kind == "lora" else "final_model/model.safetensors"
    assert (tmp_path / "out-3" / weights).read_bytes() == (tmp_path / "undisturbed" / weights).read_bytes()


def test_an_adapter_is_trained_further_and_measured_from_where_it_began(model: Path, tmp_path: Path) -> None:
    run(ppo_task(model, training={"learning_rate": 0.05}), tmp_path / "first")
    adapter = {"load": {"path": str(tmp_path / "first" / "final_lora"), "type": "adapter"}}
    run(ppo_task(model, checkpoint=adapter), tmp_path / "second")
    before, after = metrics(tmp_path / "first"), metrics(tmp_path / "second")
    assert before[-1]["kl"] > 0.01
    assert after[0]["kl"] == pytest.approx(0, abs=1e-4)


def test_a_stage_goes_on_from_a_training_checkpoint_of_another_run(model: Path, tmp_path: Path) -> None:
    run(ppo_task(model, training={"steps": 6}), tmp_path / "whole")
    first = ppo_task(model, training={"steps": 3}, checkpoint_dir=tmp_path / "checkpoints")
    run(first, tmp_path / "first")
    load = {"load": {"path": str(tmp_path / "checkpoints" / "step-00000002"), "type": "checkpoint"}}
    longer = ppo_task(model, training={"steps": 6}, checkpoint=load)
    run(longer, tmp_path / "longer")
    assert [step for step, _ in heard(longer).measured] == [2, 3, 4, 5]
    assert "going on from the checkpoint of step 2" in heard(longer).lines()
    assert metrics(tmp_path / "longer") == metrics(tmp_path / "whole")
    with pytest.raises(ExecutionError, match="has 2 steps behind it, and the stage asks for 2"):
        run(ppo_task(model, training={"steps": 2}, checkpoint=load), tmp_path / "done")


def test_a_checkpoint_of_an_adapter_trained_further_brings_its_reference(model: Path, tmp_path: Path) -> None:
    run(ppo_task(model, training={"learning_rate": 0.05}), tmp_path / "adapter")
    adapter = {"load": {"path": str(tmp_path / "adapter" / "final_lora"), "type": "adapter"}}
    run(ppo_task(model, checkpoint=adapter, checkpoint_dir=tmp_path / "checkpoints"), tmp_path / "further")
    load = {"load": {"path": str(tmp_path / "checkpoints" / "step-00000002"), "type": "checkpoint"}}
    run(ppo_task(model, checkpoint=load), tmp_path / "second")
    assert metrics(tmp_path / "second") == metrics(tmp_path / "further")


@pytest.mark.parametrize(("task_type", "kind"), [("ppo", "model"), ("sft", "checkpoint")])
def test_a_checkpoint_of_ppo_is_no_model(task_type: str, kind: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / PPO_STATE).touch()
    load = {"load": {"path": str(tmp_path), "type": kind}}
    with pytest.raises(ModelError, match="which holds no whole model") as caught:
        load_for_training(training_task(model, ROWS, task_type=task_type, checkpoint=load))
    assert "final_lora" in caught.value.hint


@pytest.fixture(scope="module")
def biased(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with biases, all 0 at first."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("biased")
    config = AutoConfig.from_pretrained(model, attention_bias=True)
    AutoModelForCausalLM.from_pretrained(model, config=config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [{"bias": "lora_only"}, {"bias": "all"}, {"modules_to_save": ["embed_tokens"]}])
def test_the_reference_stays_where_it_is_whatever_an_adapter_trains(
    lora: dict[str, Any], biased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [Text([5, 6], [7, 8]), Text([9], [10, 11])]
    made: list[tuple[Policy, torch.Tensor]] = []

    def policy(*arguments: Any, **named: Any) -> Policy:
        found = Policy(*arguments, **named)
        made.append((found, found.reference_logprobs(texts)))
        return found

    monkeypatch.setattr("mloc_tasks.executors.ppo.executor.Policy", policy)
    run(ppo_task(biased, lora=lora, training={"learning_rate": 0.1, "save_model": False}), tmp_path / "out")
    ((trained, at_first),) = made
    assert not torch.allclose(trained.estimates(texts).logprobs, at_first, atol=0.1)
    torch.testing.assert_close(trained.reference_logprobs(texts), at_first, atol=1e-3, rtol=0)
    assert {each.dtype for each in trained.trained_weights().values()} == {torch.float32}


def length_asked_for(prompts: list[str], completions: list[str], *, length: list[int]) -> list[float]:
    assert all(prompt == f"Say {asked} letters." for prompt, asked in zip(prompts, length, strict=True))
    return [-abs(len(text) - asked) / 8 for text, asked in zip(completions, length, strict=True)]


def test_a_reward_function_sees_the_columns_that_it_asks_for(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {length} letters.", "length": length, "unused": "x"} for length in range(2, 7)]
    function = {"type": "function", "identifier": f"{__name__}:length_asked_for"}
    result = run(ppo_task(model, rows, reward_model=function, training={"steps": 2}), tmp_path / "out")
    assert result["train_seconds"] > 0


def test_a_classifier_s_sentiment_is_the_reward(model: Path, tmp_path: Path) -> None:
    sentiment = save_classifier(tmp_path / "sentiment", labels=("negative", "neutral", "positive"))
    reward = {"type": "sentiment", "path": str(sentiment), "batch_size": 2}
    run(ppo_task(model, reward_model=reward), tmp_path / "out")
    assert all(-1 <= step["mean_reward"] <= 1 for step in metrics(tmp_path / "out"))


def test_two_processes_measure_what_one_does(model: Path, tmp_path: Path) -> None:
    # Small steps: Adam makes as much of a gradient of nearly 0, rounding that is, as of any other.
    # In 16 bits, what a row comes to depends on those beside it.
    training = {"steps": 3, "learning_rate": 1e-3, "bf16": False}
    run(ppo_task(model, training=training), tmp_path / "one")
    (tmp_path / "two").mkdir()
    task = ppo_task(model, training={**training, "nproc_per_node": 2}, enforce_cpu=True)
    result = PpoExecutor().run(task, tmp_path / "two")
    assert result["steps"] == 3
    assert [step for step, _ in heard(task).measured] == [0, 1, 2]
    for ours, alone in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        # What is left of a variance is the difference of nearly equal numbers.
        assert ours.pop("explained_variance") == pytest.approx(alone.pop("explained_variance"), abs=0.05, rel=0.1)
        assert ours == pytest.approx(alone, abs=2e-3, rel=0.01, nan_ok=True)


def not_a_number(prompts: list[str], completions: list[str]) -> list[float]:
    return [float("nan") for _ in completions]


def test_what_cannot_be_done_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="gave nan"):
        run(
            ppo_task(model, reward_model={"type": "function", "identifier": f"{__name__}:not_a_number"}), tmp_path / "1"
        )
    with pytest.raises(InputError, match=r"row 1 of the data has a prompt of \d+ tokens"):
        run(ppo_task(model, [*ROWS[:1], {"prompt": "a" * 300}]), tmp_path / "2")
    with pytest.raises(ExecutionError, match=r"training\.fsdp"):
        run(ppo_task(model, training={"fsdp": "full_shard"}), tmp_path / "3")


def test_a_model_that_lies_on_several_devices_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spread(task: Task, **named: Any) -> Any:
        """What a machine with two GPUs makes of device_map_auto."""
        trainee = load_for_training(task, **named)
        trainee.model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1}
        return trainee

    monkeypatch.setattr("mloc_tasks.executors.ppo.executor.load_for_training", spread)
    with pytest.raises(ExecutionError, match="spread over several devices: 0, 1") as caught:
        run(ppo_task(model), tmp_path / "out")
    assert "device_map_auto" in caught.value.hint


def test_memory_that_runs_out_comes_with_advice(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        raise MemoryError("none left")

    monkeypatch.setattr("mloc_tasks.executors.ppo.executor.scorer_of", lambda *_, **__: no_memory)
    with pytest.raises(ExecutionError, match="out of memory") as caught:
        run(ppo_task(model), tmp_path / "out")
    assert "generation.max_new_tokens" in caught.value.hint
