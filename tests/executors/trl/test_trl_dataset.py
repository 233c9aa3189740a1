from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import InputError
from mloc_tasks.executors.training.tokens import RowFormat, formatted
from mloc_tasks.executors.trl import DpoExecutor, RewardExecutor, SftExecutor
from mloc_tasks.executors.trl.dataset import dataset_of
from mloc_tasks.executors.trl.executor import TrlExecutor
from tests.executors.training.tiny_model import make_tiny_model
from tests.executors.training.training_tasks import training_task

pytest.importorskip("trl")

ASK, SAY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
PAIR = {"prompt": "Hi", "completion": "Hello"}
TOOLS = [{"name": "clock", "parameters": {}}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "clock", "arguments": {"zone": "CET"}}]}
MANY = 1001
"""More rows than the writer of datasets puts into one table."""
SHOWS_ALL = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if loud %}!{% endif %}"
    "{% for message in messages %}{{ message.content or (message.tool_calls | tojson) }}{% endfor %}"
)


def dataset(rows: list[dict[str, Any]], folder: Path, *, chat: bool = True) -> Any:
    return dataset_of(formatted(rows, RowFormat(chat=chat)), folder)


@pytest.mark.parametrize("place", [0, 1, MANY], ids=["first", "later", "in a later batch"])
def test_a_row_keeps_its_tools_wherever_it_stands(place: int, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [PAIR] * (MANY + 2)
    rows[place] = {**PAIR, "tools": TOOLS, "chat_template_kwargs": {"thinking": True}}
    made = dataset(rows, tmp_path)
    assert [row["tools"] is not None for row in made] == [number == place for number in range(len(rows))]
    assert made[place]["tools"] == '[{"name": "clock", "parameters": {}}]'
    assert made[place]["chat_template_kwargs"] == {"thinking": True}
    assert made[MANY - 1 if place == 0 else 0]["chat_template_kwargs"] == {}


def test_tools_and_arguments_differ_freely_between_rows(tmp_path: Path) -> None:
    other = {"role": "assistant", "content": None, "tool_calls": [{"name": "sum", "arguments": {"of": [1, 2.5]}}]}
    rows = [
        {"messages": [ASK, CALL], "tools": TOOLS, "chat_template_kwargs": {"thinking": True}},
        {"messages": [ASK, other], "tools": [{"name": "sum", "parameters": {"of": "numbers"}}]},
        {"messages": [ASK, SAY], "chat_template_kwargs": {"depth": 3}},
    ]
    made = dataset(rows, tmp_path)
    assert [row["messages"] for row in made] == [row["messages"] for row in rows]
    assert [row["chat_template_kwargs"] for row in made] == [{"thinking": True}, {}, {"depth": 3}]


def test_a_field_of_messages_may_appear_late(tmp_path: Path) -> None:
    rows = [*[PAIR] * MANY, {"prompt": [ASK], "completion": [CALL]}]
    made = dataset(rows, tmp_path)
    assert made[0] == {"prompt": [ASK], "completion": [SAY]}
    assert made[MANY] == {"prompt": [ASK], "completion": [CALL]}


@pytest.mark.parametrize("chat", [True, False])
def test_columns_that_no_row_has_are_not_there(chat: bool, tmp_path: Path) -> None:
    assert dataset([PAIR, {**PAIR, "tools": None}], tmp_path, chat=chat).column_names == ["prompt", "completion"]


@pytest.mark.parametrize("odd", [{"text": "Once"}, {"messages": [ASK, SAY]}])
def test_rows_of_several_forms_are_an_error_that_names_the_first_odd_one(odd: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 2 has \w+ \(\w+\), and row 0 has completion \(chat\), prompt") as caught:
        dataset([PAIR, PAIR, odd], tmp_path)
    assert "same columns" in str(caught.value.hint)


def test_what_cannot_be_kept_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    call = {**CALL, "tool_calls": [{"name": "f", "arguments": {"n": 2**64}}]}
    with pytest.raises(InputError, match="row 1 has a value that cannot be kept"):
        dataset([PAIR, {"prompt": [ASK], "completion": [call]}], tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    (folder / "chat_template.jinja").write_text(SHOWS_ALL)
    return folder


@pytest.mark.parametrize(
    ("executor", "row", "odd", "column", "seen"),
    [
        (SftExecutor, PAIR, {"prompt": [ASK, CALL, ASK], "completion": [SAY]}, "input_ids", "HiCALLHiHello"),
        (
            DpoExecutor,
            {"chosen": [ASK, SAY], "rejected": [ASK, ASK]},
            {"chosen": [ASK, CALL, SAY], "rejected": [ASK, CALL, ASK]},
            "prompt_ids",
            "HiCALL",
        ),
        (
            RewardExecutor,
            {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
            {"prompt": [ASK, CALL], "chosen": "Hello", "rejected": "No"},
            "chosen_ids",
            "HiCALLHello",
        ),
    ],
)
def test_the_trainer_shows_the_model_tools_and_calls_that_one_late_row_has(
    executor: type[TrlExecutor],
    row: dict[str, Any],
    odd: dict[str, Any],
    column: str,
    seen: str,
    model: Path,
    tmp_path: Path,
) -> None:
    from transformers import AutoTokenizer

    trained: list[Any] = []

    class Watched(executor):  # type: ignore[valid-type, misc]
        def callbacks(self, trainer: Any) -> tuple[Any, ...]:
            trained.append(trainer.train_dataset)
            return ()

    late = {**odd, "tools": TOOLS, "chat_template_kwargs": {"loud": True}}
    training = {"steps": 1, "save_model": False}
    Watched().run(training_task(model, [*[row] * MANY, late], task_type=executor.name, training=training), tmp_path)
    texts = AutoTokenizer.from_pretrained(model).batch_decode([trained[0][place][column] for place in (0, MANY)])
    called = '[{"name": "clock", "arguments": {"zone": "CET"}}]'
    assert texts[0] == seen.replace("CALLHi", "").replace("CALL", "")
    assert texts[1] == '[{"name": "clock", "parameters": {}}]!' + seen.replace("CALL", called)
