"""Rows become the tokens that the model continues; the tokenizer here is a stand-in with one token per word."""

from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks.executors.generation.prompts import PromptEncoder, RowError


class Words:
    """Tokenizes by words and shows what it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        self.texts.append(text)
        return {"input_ids": list(range(len(text.split())))}

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return " ".join(f"{each['role']}:{each['content']}" for each in messages)


def encoder(*, chat: bool = True, system_prompt: str | None = None, context_length: int | None = None) -> PromptEncoder:
    return PromptEncoder(tokenizer=Words(), chat=chat, system_prompt=system_prompt, context_length=context_length)


def test_system_prompt_stands_before_the_row_unless_it_has_its_own() -> None:
    chat = encoder(system_prompt="brief")
    chat.encode("hi")
    chat.encode([{"role": "system", "content": "own"}, {"role": "user", "content": "hi"}])
    assert chat.tokenizer.texts == ["system:brief user:hi", "system:own user:hi"]


def test_raw_prompt_is_the_text_itself() -> None:
    raw = encoder(chat=False, system_prompt="brief")
    raw.encode("hi")
    assert raw.tokenizer.texts == ["brief\n\nhi"]


def test_prompt_that_fills_the_context_is_refused() -> None:
    raw = encoder(chat=False, context_length=3)
    assert len(raw.encode("a b")) == 2
    with pytest.raises(RowError, match="3 tokens, no room in a context of 3"):
        raw.encode("a b c")


@pytest.mark.parametrize(
    ("chat", "row", "words"),
    [
        (False, "", "empty"),
        (True, [], "empty list"),
        (True, [{"role": "user"}], "message 0"),
        (False, [{"role": "user", "content": "hi"}], "no chat template is in use"),
    ],
)
def test_malformed_rows_say_what_is_wrong(chat: bool, row: Any, words: str) -> None:
    with pytest.raises(RowError, match=words):
        encoder(chat=chat).encode(row)
