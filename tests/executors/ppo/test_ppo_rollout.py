"""Completions are drawn row by row: none depends on the others, and what is recorded is what the policy thinks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mloc_tasks.executors.ppo.policy import Policy, Text  # noqa: E402
from mloc_tasks.executors.ppo.rollout import Sample, Sampler  # noqa: E402
from tests.executors.ppo.tiny_policy import EOS, PROMPTS, sampler_of, settings_of, tiny_model  # noqa: E402

IDS = [list(prompt.ids) for prompt in PROMPTS]
PLACES = range(len(IDS))


def sampler(**settings: Any) -> Sampler:
    return sampler_of(Policy(tiny_model(), temperature=settings.get("temperature", 1.0)), settings_of(**settings))


def draw(drawer: Sampler, step: int = 0) -> list[Sample]:
    return drawer.draw(IDS, step=step, places=PLACES)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_what_is_recorded_is_what_scoring_finds(temperature: float) -> None:
    drawer = sampler(max_tokens=12, temperature=temperature)
    torch.nn.init.normal_(drawer.policy.value_head.weight)
    samples = draw(drawer)
    scored = drawer.policy.estimates_without_gradient([Text(each.prompt, each.completion) for each in samples])
    for row, each in enumerate(samples):
        count = len(each.completion)
        torch.testing.assert_close(torch.tensor(each.logprobs), scored.logprobs[row, :count], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(torch.tensor(each.values), scored.values[row, :count], atol=2e-6, rtol=1e-5)


def test_a_row_is_the_same_beside_any_others() -> None:
    drawer = sampler(max_tokens=12)
    together = draw(drawer)
    for place in PLACES:
        (alone,) = drawer.draw([IDS[place]], step=0, places=[place])
        assert alone.completion == together[place].completion
        assert alone.text == together[place].text
        assert alone.logprobs == pytest.approx(together[place].logprobs, abs=1e-5)


def test_steps_and_places_draw_differently() -> None:
    drawer = sampler(max_tokens=12)
    first, again, second = draw(drawer), draw(drawer), draw(drawer, step=1)
    assert first == again
    assert [each.completion for each in first] != [each.completion for each in second]
    same_prompt = drawer.draw([IDS[0]] * 4, step=0, places=range(4))
    assert len({tuple(each.completion) for each in same_prompt}) > 1


def test_a_completion_ends_with_its_first_end_token_or_at_its_limit() -> None:
    samples = [each for step in range(5) for each in draw(sampler(max_tokens=8), step)]
    assert {each.ended for each in samples} == {True, False}
    for each in samples:
        assert each.ended == (each.completion[-1] == EOS)
        assert EOS not in each.completion[:-1]
        assert each.ended or len(each.completion) == 8
        assert len(each.logprobs) == len(each.values) == len(each.completion)
        assert len(each.text) == len([token for token in each.completion if token < EOS])


def test_an_end_token_at_once_is_a_completion_without_text() -> None:
    drawer = sampler()
    with torch.no_grad():  # an LM head that knows nothing but the end
        drawer.policy.model.lm_head.weight.zero_()
        drawer.policy.model.lm_head.register_forward_hook(
            lambda _, __, logits: logits + 50.0 * torch.eye(logits.shape[-1])[EOS]
        )
    for each in draw(drawer):
        assert each.completion == [EOS]
        assert each.text == ""
        assert each.ended


def test_a_stop_string_ends_a_completion_and_is_cut_from_its_text() -> None:
    drawer = sampler(max_tokens=12)
    stopping = replace(drawer, decoding=replace(drawer.decoding, stop=("d",)))
    plain, stopped = draw(drawer), draw(stopping)
    assert any("d" in each.text for each in plain)
    for before, after in zip(plain, stopped, strict=True):
        if "d" in before.text:
            assert after.text == before.text[: before.text.index("d")]
            assert after.completion == before.completion[: len(after.completion)]
            assert after.ended
        else:
            assert (after.completion, after.text, after.ended) == (before.completion, before.text, before.ended)


def test_many_rows_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawer = sampler(max_tokens=12)
    whole = draw(drawer)
    monkeypatch.setattr("mloc_tasks.executors.ppo.rollout.SIDE_BY_SIDE", 4)
    assert [each.completion for each in draw(drawer)] == [each.completion for each in whole]
