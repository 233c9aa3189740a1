"""Every prompt has its turn, in an order that needs no memory; those without room are cut or refused."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from mloc_tasks.errors import InputError
from mloc_tasks.executors.ppo.prompts import Prompt, PromptOrder, encoded
from mloc_tasks.executors.training.tokens import RowFormat
from tests.executors.ppo.tiny_policy import Letters

ROWS = [{"prompt": "ab"}, {"prompt": "abcdefgh"}]


class ChatLetters(Letters):
    chat_template: Any = "a template"

    def apply_chat_template(self, messages: list[dict[str, Any]], **_: Any) -> str:
        return (
            "".join(
                f"{message['role'][0].replace('u', 'g').replace('s', 'h')}{message['content']}" for message in messages
            )
            + "a"
        )

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return super().__call__(text)


def encode(
    rows: list[Any], tokenizer: Any = None, *, separator: str | None = None, **limits: Any
) -> tuple[list[Prompt], int]:
    tokenizer = tokenizer or Letters()
    form = RowFormat(chat=tokenizer.chat_template is not None, separator=separator)
    return encoded(rows, tokenizer, form=form, **{"most_tokens": None, "cut": False, "new_tokens": 4, **limits})


def test_each_pass_has_every_row_once_in_its_own_order() -> None:
    order = PromptOrder(rows=10, seed=0)
    passes = [[order.at(epoch * 10 + place) for place in range(10)] for epoch in range(3)]
    assert all(sorted(each) == list(range(10)) for each in passes)
    assert len({tuple(each) for each in passes}) == 3
    assert [PromptOrder(rows=10, seed=0).at(place) for place in range(20, 30)] == passes[2]
    assert [PromptOrder(rows=10, seed=1).at(place) for place in range(10)] != passes[0]


def test_prompts_are_plain_text_or_go_through_the_chat_template() -> None:
    plain, _ = encode(ROWS, separator="h")
    assert list(plain[0].ids) == [0, 1, 7]
    assert plain[0].given == "ab"
    chat, _ = encode(
        [*ROWS, {"prompt": [{"role": "system", "content": "c"}, {"role": "user", "content": "d"}]}], ChatLetters()
    )
    assert list(chat[0].ids) == [6, 0, 1, 0]
    assert list(chat[2].ids) == [7, 2, 6, 3, 0]


def test_longer_prompts_lose_their_beginning_where_a_length_is_asked_for() -> None:
    prompts, cuts = encode(ROWS, most_tokens=9, cut=True)
    assert cuts == 1
    assert list(prompts[0].ids) == [0, 1]
    assert list(prompts[1].ids) == [3, 4, 5, 6, 7]
    assert prompts[1].given == "abcdefgh", "the reward model reads all of it"


@pytest.mark.parametrize(
    ("rows", "limits", "said"),
    [
        (ROWS, {"most_tokens": 9}, "row 1 of the data has a prompt of 8 tokens; with 4 new ones"),
        (ROWS, {"most_tokens": 4}, "4 new tokens leave no room"),
        ([{"prompt": "a"}, {"text": "b"}], {}, "row 1 of the data has no prompt"),
        ([{"prompt": ""}], {}, "row 0 of the data: the prompt is empty"),
        ([{"prompt": [{"role": "user", "content": "a"}]}], {}, "row 0 of the data: .*chat"),
        ([], {}, "no rows"),
    ],
)
def test_a_prompt_that_cannot_be_completed_is_refused(rows: list[Any], limits: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        encode(rows, **limits)
