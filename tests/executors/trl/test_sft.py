from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import ExecutionError, InputError, ModelError
from mloc_tasks.executors.base import Task
from mloc_tasks.executors.trl import SftExecutor
from tests.executors.training.tiny_model import make_tiny_model
from tests.executors.training.training_tasks import QUESTIONS, heard, training_task

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("plain"), chat=False)


def run(task: Task, out_dir: Path) -> dict[str, Any]:
    out_dir.mkdir(exist_ok=True)
    return SftExecutor().run(task, out_dir)


def names(out_dir: Path) -> list[str]:
    """What a training leaves behind, curves aside, which other tests are about."""
    return sorted(path.name for path in out_dir.iterdir() if path.stem != "curves")


def losses(out_dir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out_dir / "metrics.jsonl").read_text().splitlines()]


def config_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return found


def test_a_model_learns_and_is_saved_as_it_was_given(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    task = training_task(model, QUESTIONS, training={"steps": 30, "batch_size": 8})
    result = run(task, tmp_path)
    assert result["ok"] is True
    assert (result["model"], result["steps"]) == (str(model), 30)
    measured = losses(tmp_path)
    assert len(measured) == 30
    assert measured[-1] < measured[0] / 2
    assert result["metrics"]["train_loss"] == pytest.approx(sum(measured) / 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.png",
        "curves.svg",
        "final_model",
        "metrics.jsonl",
    ]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "final_model")
    assert str(saved.dtype) == "torch.bfloat16"
    assert AutoTokenizer.from_pretrained(tmp_path / "final_model").chat_template is not None
    differing = {"dtype", "transformers_version", "pad_token_id", "architectures"}
    before, after = config_of(model), config_of(tmp_path / "final_model")
    assert {k: v for k, v in after.items() if k not in differing} == {
        k: v for k, v in before.items() if k not in differing
    }


def test_an_adapter_is_saved_alone_unless_the_merged_model_is_wanted(model: Path, tmp_path: Path) -> None:
    task = training_task(model, QUESTIONS, task_type="lora_sft", lora={"r": 4, "target_modules": "q_proj, v_proj"})
    run(task, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.png",
        "curves.svg",
        "final_lora",
        "metrics.jsonl",
    ]
    adapter = json.loads((tmp_path / "final_lora" / "adapter_config.json").read_text())
    assert (adapter["r"], sorted(adapter["target_modules"])) == (4, ["q_proj", "v_proj"])
    assert adapter["base_model_name_or_path"] == str(model)


def test_the_merged_model_is_the_model_with_its_adapter(model: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    task = training_task(
        model, QUESTIONS, task_type="lora_sft", lora={"r": 4}, wanted=["final_model_url"], training={"steps": 10}
    )
    run(task, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "final_lora"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "final_model", dtype=torch.float32)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=0.05, rtol=0.05)
        with adapted.disable_adapter():
            assert (adapted(input_ids=ids).logits - expected).abs().max() > 0.05


def test_a_trained_adapter_can_be_trained_further(model: Path, tmp_path: Path) -> None:
    first = training_task(model, QUESTIONS, task_type="lora_sft", lora={"r": 4}, training={"steps": 8})
    run(first, tmp_path / "first")
    load = {"load": {"path": str(tmp_path / "first" / "final_lora"), "type": "adapter"}}
    second = training_task(model, QUESTIONS, task_type="lora_sft", checkpoint=load, training={"steps": 8})
    run(second, tmp_path / "second")
    assert losses(tmp_path / "second")[0] < losses(tmp_path / "first")[0]
    adapter = json.loads((tmp_path / "second" / "final_lora" / "adapter_config.json").read_text())
    assert adapter["r"] == 4


def test_full_training_starts_from_an_adapter_by_merging_it(model: Path, tmp_path: Path) -> None:
    first = training_task(model, QUESTIONS, task_type="lora_sft", lora={"r": 4}, training={"steps": 8})
    run(first, tmp_path / "first")
    load = {"load": {"path": str(tmp_path / "first" / "final_lora"), "type": "adapter"}}
    second = training_task(model, QUESTIONS, checkpoint=load, training={"steps": 2})
    run(second, tmp_path / "second")
    assert losses(tmp_path / "second")[0] < losses(tmp_path / "first")[0]
    assert (tmp_path / "second" / "final_model" / "config.json").exists()


def test_a_stage_goes_on_from_a_training_checkpoint_of_another_run(model: Path, tmp_path: Path) -> None:
    whole = training_task(model, QUESTIONS, training={"steps": 6})
    run(whole, tmp_path / "whole")
    first = training_task(
        model, QUESTIONS, training={"steps": 6, "save_freq": 3}, checkpoint_dir=tmp_path / "checkpoints"
    )
    run(first, tmp_path / "first")
    load = {"load": {"path": str(tmp_path / "checkpoints" / "step-00000003"), "type": "checkpoint"}}
    second = training_task(model, QUESTIONS, checkpoint=load, training={"steps": 6})
    run(second, tmp_path / "second")
    assert losses(tmp_path / "second") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)
    assert [step for step, _ in heard(second).measured] == [4, 5, 6]
    done = training_task(model, QUESTIONS, checkpoint=load, training={"steps": 3})
    with pytest.raises(ExecutionError, match="has 3 steps behind it, and the stage asks for 3"):
        run(done, tmp_path / "done")


def test_only_the_completion_is_learnt(plain_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "abc", "completion": "d"}] * 8
    # The first step's loss is measured before anything is learnt, so it tells which tokens were counted.
    completion_only = training_task(plain_model, rows, training={"steps": 1, "batch_size": 8})
    run(completion_only, tmp_path / "completion")
    everything = training_task(plain_model, rows, training={"steps": 1, "batch_size": 8, "completion_only_loss": False})
    run(everything, tmp_path / "everything")
    assert losses(tmp_path / "completion") != losses(tmp_path / "everything")


@pytest.mark.parametrize("rows", [[{"text": "abc def"}] * 4, [{"messages": [{"role": "user", "content": "a"}]}] * 4])
def test_texts_and_conversations_are_learnt_whole(rows: list[dict[str, Any]], model: Path, tmp_path: Path) -> None:
    assert run(training_task(model, rows, training={"steps": 2}), tmp_path)["steps"] == 2


def test_packing_and_cutting_are_trl_s(model: Path, tmp_path: Path) -> None:
    rows = [{"text": "abc def " * 10}] * 8
    task = training_task(model, rows, training={"steps": 1, "max_seq_length": 32, "batch_size": 8})
    assert run(task, tmp_path / "cut")["metrics"]["num_tokens"] == 8 * 32


def test_rows_whose_answer_is_cut_off_are_told_of(model: Path, tmp_path: Path) -> None:
    rows = [*QUESTIONS[:4], {"prompt": "long " * 40, "completion": "short"}]
    task = training_task(model, rows, training={"steps": 1, "max_seq_length": 64})
    run(task, tmp_path / "some")
    assert any(line.startswith("1 of 5 rows are left out") for line in heard(task).lines("warning"))
    with pytest.raises(ExecutionError, match="1 of 1 rows are left out"):
        run(training_task(model, rows[-1:], training={"steps": 1, "max_seq_length": 64}), tmp_path / "none")


def test_no_model_is_kept_where_none_is_wanted(model: Path, tmp_path: Path) -> None:
    run(training_task(model, QUESTIONS, training={"steps": 1, "save_model": False}), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "curves.svg", "metrics.jsonl"}


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ({"lora": {"target_modules": ["no_such_layer"]}}, ExecutionError, "lora.target_modules does not fit"),
        ({"training": {"extra": {"no_such": 1}}}, ExecutionError, "no_such"),
        ({"training": {"packing": True, "assistant_only_loss": True, "padding_free": True}}, ExecutionError, "refuses"),
    ],
)
def test_errors_say_what_does_not_fit(
    spec: dict[str, Any], error: type[Exception], says: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        run(training_task(model, [{"text": "a"}], **spec), tmp_path)


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing is at /nowhere"):
        run(training_task("/nowhere", QUESTIONS), tmp_path)


def test_messages_for_a_model_without_a_chat_template_are_an_error(plain_model: Path, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}]}]
    with pytest.raises(InputError, match="no chat template is in use"):
        run(training_task(plain_model, rows), tmp_path)


def test_no_row_at_all_is_an_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row to train on"):
        run(training_task(model, []), tmp_path)


def test_a_lora_seed_changes_the_adapter_s_start_and_nothing_else(model: Path, tmp_path: Path) -> None:
    def final(name: str, seed: int | None) -> bytes:
        lora = {"r": 4} if seed is None else {"r": 4, "seed": seed}
        run(training_task(model, QUESTIONS, task_type="lora_sft", lora=lora, training={"steps": 1}), tmp_path / name)
        return (tmp_path / name / "final_lora" / "adapter_model.safetensors").read_bytes()

    assert final("a", 1) == final("b", 1)
    assert final("c", 2) != final("a", 1)
    assert losses(tmp_path / "c") == losses(tmp_path / "a")


def test_a_quiet_training_warns_of_nothing(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = training_task(model, QUESTIONS, training={"steps": 3, "save_freq": 2}, checkpoint_dir=tmp_path / "saved")
    run(first, tmp_path / "first")
    again = training_task(model, QUESTIONS, training={"steps": 3}, resume_from=tmp_path / "saved" / "step-00000002")
    run(again, tmp_path / "again")
    assert heard(first).lines("warning") + heard(again).lines("warning") == []
    assert "%|" not in "".join(capfd.readouterr())


def test_a_checkpoint_is_made_when_its_time_has_come(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mloc_tasks.executors.training.checkpoints.CHECKPOINT_EVERY_SEC", 0.0)
    task = training_task(model, QUESTIONS, training={"steps": 3}, checkpoint_dir=tmp_path / "checkpoints")
    run(task, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert names == ["step-00000001", "step-00000002"]  # after the last step comes the model itself
