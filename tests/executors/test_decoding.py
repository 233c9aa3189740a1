"""What the `inference` block means where it is silent."""

from __future__ import annotations

import pytest

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.generation.decoding import Decoding, decoding_of
from mloc_tasks.spec.model.inference import Inference


def test_silence_means_greedy() -> None:
    assert decoding_of(None) == Decoding()
    assert decoding_of(Inference.model_validate({"seed": 0})).temperature == 0


def test_asking_for_something_of_sampling_samples() -> None:
    assert decoding_of(Inference.model_validate({"top_p": 0.9})).temperature == 1
    assert decoding_of(Inference.model_validate({"n": 2})).temperature == 1
    assert decoding_of(Inference.model_validate({"top_p": 0.9, "temperature": 0})).temperature == 0


def test_several_greedy_completions_are_refused() -> None:
    with pytest.raises(ExecutionError, match="all completions would be the same"):
        decoding_of(Inference.model_validate({"n": 2, "temperature": 0}))


def test_unset_seed_differs_between_runs() -> None:
    assert decoding_of(Inference()).seed != decoding_of(Inference()).seed


def test_draws_depend_on_row_and_sample_alone() -> None:
    decoding = Decoding(seed=7)
    first = decoding.random(3, 0).random()
    assert first == Decoding(seed=7).random(3, 0).random()
    assert len({first, decoding.random(3, 1).random(), decoding.random(4, 0).random()}) == 3


def test_top_k_of_minus_one_is_off() -> None:
    assert decoding_of(Inference.model_validate({"top_k": -1})).top_k == 0


def test_logprobs_true_reports_the_chosen_token_only() -> None:
    assert decoding_of(Inference.model_validate({"logprobs": True})).logprobs == 0
    assert decoding_of(Inference.model_validate({"logprobs": 3})).logprobs == 3
    assert decoding_of(Inference.model_validate({"logprobs": False})).logprobs is None
