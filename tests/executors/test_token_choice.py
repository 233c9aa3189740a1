"""The next token is drawn from the right distribution, row by row."""

from __future__ import annotations

import math
import random

import pytest

from mloc_tasks.executors.generation.decoding import Decoding
from mloc_tasks.executors.transformers.token_choice import TokenChooser

torch = pytest.importorskip("torch")

PROBABILITIES = [0.5, 0.3, 0.15, 0.05]


def choices(decoding: Decoding, *, rows: int = 2000) -> list[int]:
    """Tokens chosen for `rows` rows that all have the same scores."""
    scores = torch.tensor([PROBABILITIES] * rows).log()
    chooser = TokenChooser(
        decoding=decoding,
        prompts=[[3]] * rows,
        draws=[decoding.random(index, 0) for index in range(rows)],
        prompt_width=1,
        end_tokens=[],
    )
    allowed = chooser(torch.full((rows, 1), 3), scores)
    assert torch.isfinite(allowed).sum(dim=-1).eq(1).all(), "exactly one token is left for each row"
    return list(allowed.argmax(dim=-1).tolist())


def test_frequencies_follow_the_probabilities() -> None:
    drawn = choices(Decoding(temperature=1.0, seed=1), rows=20_000)
    for token, probability in enumerate(PROBABILITIES):
        expected = probability * len(drawn)
        deviation = math.sqrt(expected * (1 - probability))
        assert abs(drawn.count(token) - expected) < 4 * deviation


@pytest.mark.parametrize(
    ("decoding", "possible"),
    [
        (Decoding(temperature=0.0), {0}),
        (Decoding(temperature=1.0, top_k=2), {0, 1}),
        (Decoding(temperature=1.0, top_p=0.6), {0, 1}),
        (Decoding(temperature=1.0, top_p=0.5), {0}),
        (Decoding(temperature=1.0, min_p=0.2), {0, 1, 2}),
        (Decoding(temperature=1.0, top_k=3, min_p=0.5), {0, 1}),
        (Decoding(temperature=0.01), {0}),
    ],
)
def test_filters_leave_the_likeliest_tokens(decoding: Decoding, possible: set[int]) -> None:
    assert set(choices(decoding)) == possible


def test_a_row_draws_the_same_in_any_batch() -> None:
    together = choices(Decoding(temperature=1.0, seed=5), rows=50)
    assert choices(Decoding(temperature=1.0, seed=5), rows=10) == together[:10]


def test_repetition_penalty_falls_on_the_prompt_but_not_on_padding() -> None:
    chooser = TokenChooser(
        decoding=Decoding(repetition_penalty=10.0),
        prompts=[[1], [0, 2]],
        draws=[random.Random(0)] * 2,
        prompt_width=2,
        end_tokens=[],
    )
    padded = torch.tensor([[0, 1], [0, 2]])  # the first row's 0 is padding
    chosen = chooser(padded, torch.tensor([[2.0, 3.0, 1.0], [2.0, 1.0, 1.9]])).argmax(dim=-1).tolist()
    assert chosen == [0, 1]


def test_frequency_penalty_grows_with_each_occurrence() -> None:
    decoding = Decoding(frequency_penalty=0.6)
    chooser = TokenChooser(decoding=decoding, prompts=[[0]], draws=[random.Random(0)], prompt_width=1, end_tokens=[])
    ids = torch.tensor([[0]])
    for _ in range(3):
        token = chooser(ids, torch.tensor([[1.0, 0.0]])).argmax(dim=-1, keepdim=True)
        ids = torch.cat([ids, token], dim=1)
    assert ids.tolist() == [[0, 0, 0, 1]]


def test_end_tokens_are_barred_until_min_tokens() -> None:
    chooser = TokenChooser(
        decoding=Decoding(min_tokens=1), prompts=[[1]], draws=[random.Random(0)], prompt_width=1, end_tokens=[0]
    )
    scores = torch.tensor([[5.0, 1.0]])
    assert chooser(torch.tensor([[1]]), scores).argmax().item() == 1
    assert chooser(torch.tensor([[1, 1]]), scores).argmax().item() == 0


def test_logprobs_are_the_models_own_before_any_penalty() -> None:
    decoding = Decoding(temperature=0.5, logprobs=2, seed=0)
    scores = torch.tensor([PROBABILITIES]).log()
    chooser = TokenChooser(
        decoding=decoding, prompts=[[1]], draws=[decoding.random(0, 0)], prompt_width=1, end_tokens=[]
    )
    chooser(torch.tensor([[1]]), scores)
    (entry,) = chooser.logprobs[0]
    assert entry.logprob == pytest.approx(math.log(PROBABILITIES[entry.token]), abs=1e-5)
    assert [token for token, _ in entry.top] == [0, 1]
