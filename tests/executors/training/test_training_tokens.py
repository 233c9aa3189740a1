from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import InputError
from mloc_tasks.executors.training.tokens import RowFormat, formatted, pad_token_of, row_format
from tests.executors.training.tiny_model import make_tiny_model

pytest.importorskip("transformers")

ASK, SAY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
PAIR = {"prompt": "Hi", "completion": "Hello"}


def tokenizer(folder: Path, *, chat: bool = True) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_tiny_model(folder, chat=chat))


def test_a_pad_token_that_ends_completions_is_replaced(tmp_path: Path) -> None:
    chatty = tokenizer(tmp_path)
    assert chatty.pad_token == chatty.eos_token == "<|im_end|>"
    assert pad_token_of(chatty) == "<|endoftext|>"


def test_padding_is_the_end_token_where_the_vocabulary_has_no_other(tmp_path: Path) -> None:
    class Bare:
        eos_token, pad_token, unk_token = "<end>", None, None

        def get_vocab(self) -> dict[str, int]:
            return {"<end>": 0, "a": 1}

    assert pad_token_of(Bare()) == "<end>"


def test_texts_become_a_conversation_where_the_model_has_a_chat_template(tmp_path: Path) -> None:
    form = row_format(tokenizer(tmp_path))
    assert form.conversation(PAIR) == {"prompt": [ASK], "completion": [SAY]}
    assert form.conversation({"prompt": "Hi", "chosen": "Hello", "rejected": [SAY]}) == {
        "prompt": [ASK],
        "chosen": [SAY],
        "rejected": [SAY],
    }
    assert form.conversation({"prompt": "Hi"}) == {"prompt": [ASK]}
    assert form.conversation({"chosen": [ASK, SAY], "rejected": [ASK, SAY]}) == {
        "chosen": [ASK, SAY],
        "rejected": [ASK, SAY],
    }


def test_a_separator_asks_for_plain_text_all_the_same(tmp_path: Path) -> None:
    form = row_format(tokenizer(tmp_path), separator=" => ")
    assert form.conversation(PAIR) == {"prompt": "Hi => ", "completion": "Hello"}


def test_plain_text_is_joined_by_a_new_line_where_no_white_space_is(tmp_path: Path) -> None:
    form = row_format(tokenizer(tmp_path, chat=False))
    assert form.conversation(PAIR) == {"prompt": "Hi\n", "completion": "Hello"}
    assert form.conversation({"prompt": "The sky is", "completion": " blue"}) == {
        "prompt": "The sky is",
        "completion": " blue",
    }
    assert form.conversation({"prompt": "Q: 1+1?\n", "completion": "2"})["prompt"] == "Q: 1+1?\n"
    assert form.conversation({"prompt": "Hi"}) == {"prompt": "Hi"}


def test_a_text_is_trained_on_as_it_is() -> None:
    assert RowFormat(chat=True).conversation({"text": "Once", "id": 7}) == {"text": "Once"}


def test_columns_for_nobody_are_left_out_and_the_template_s_are_kept() -> None:
    beside = {"tools": [{"name": "clock"}], "chat_template_kwargs": {"thinking": False}}
    made = RowFormat(chat=True).conversation({**PAIR, "source": "web", **beside})
    assert made == {"prompt": [ASK], "completion": [SAY], **beside}
    as_text = {name: json.dumps(value) for name, value in beside.items()}
    assert RowFormat(chat=True).conversation({**PAIR, **as_text}) == made


@pytest.mark.parametrize("empty", [None, "", "[]", []])
def test_no_tools_are_as_good_as_no_column(empty: Any) -> None:
    assert RowFormat(chat=True).conversation({**PAIR, "tools": empty}) == {"prompt": [ASK], "completion": [SAY]}


@pytest.mark.parametrize("beside", [{"tools": "clock"}, {"tools": {"name": "clock"}}, {"chat_template_kwargs": [1]}])
def test_what_no_template_could_take_is_an_error_that_names_the_row(beside: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"row 1: {next(iter(beside))} is") as caught:
        list(formatted([PAIR, {**PAIR, **beside}], RowFormat(chat=True)))
    assert "or its JSON text" in str(caught.value.hint)


def test_messages_without_a_template_are_an_error_that_names_the_row() -> None:
    rows = [PAIR, {"prompt": [ASK], "completion": [SAY]}]
    with pytest.raises(InputError, match="row 1: the row holds chat messages, but no chat template") as caught:
        list(formatted(rows, RowFormat(chat=False)))
    assert "chat template" in str(caught.value.hint)
