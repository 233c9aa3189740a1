"""Reward models read text and give one finite number for each completion, or say what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mloc_tasks.errors import ExecutionError, ModelError  # noqa: E402
from mloc_tasks.executors.scoring import Scorer, scorer_of  # noqa: E402
from mloc_tasks.spec.model.model_source import RewardModel  # noqa: E402
from tests.executors.ppo.reward_models import save_classifier  # noqa: E402

PROMPTS = ["the day", "is"]
COMPLETIONS = ["good good", ""]
SENTIMENT = ("negative", "neutral", "positive")


def scorer(tmp_path: Path, separator: str | None = None, **given: Any) -> Scorer:
    model = RewardModel.model_validate(given)
    return scorer_of(model, separator=separator, device="cpu", cache_dir=tmp_path)


def logits(directory: Path, text: str) -> torch.Tensor:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    with torch.no_grad():
        return model(**AutoTokenizer.from_pretrained(directory)(text, return_tensors="pt")).logits[0]


def test_sentiment_is_how_much_likelier_positive_is_than_negative(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "model", labels=SENTIMENT)
    score = scorer(tmp_path, path=str(model), type="sentiment")
    expected = logits(model, "good good").softmax(-1)
    first, empty = score(PROMPTS, COMPLETIONS)
    assert first == pytest.approx(float(expected[2] - expected[0]), abs=1e-6)
    assert -1 <= empty <= 1


def test_a_label_s_probability_can_be_the_reward(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "model", labels=("toxic", "Harmless"))
    score = scorer(tmp_path, path=str(model), type="sentiment", label="harmless")
    assert score(PROMPTS[:1], COMPLETIONS[:1])[0] == pytest.approx(float(logits(model, "good good").softmax(-1)[1]))
    with pytest.raises(ExecutionError, match="no class 'positive'; its classes: toxic, Harmless"):
        scorer(tmp_path, path=str(model), type="sentiment")


def test_scores_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "model", labels=SENTIMENT)
    texts = ["good", "bad bad the day", "", "the day is fine fine fine", "a b c d e f g h"]
    together = scorer(tmp_path, path=str(model), batch_size=2)([""] * 5, texts)
    alone = [scorer(tmp_path, path=str(model))([""], [text])[0] for text in texts]
    assert together == pytest.approx(alone, abs=1e-6)


def test_texts_longer_than_the_reward_model_s_context_are_cut(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "model", labels=SENTIMENT)
    score = scorer(tmp_path, path=str(model))
    assert score(["", ""], ["good " * 21, "good " * 500])[0] == score([""], ["good " * 500])[0]


def test_a_reward_model_reads_prompt_and_completion(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "model", labels=("LABEL_0",))
    score = scorer(tmp_path, path=str(model), separator=" is ", type="reward")
    assert score(["the day"], ["good"])[0] == pytest.approx(float(logits(model, "the day is good")), abs=1e-6)
    chat = [{"role": "system", "content": "bad"}, {"role": "user", "content": "the day"}]
    assert score([chat], ["good"]) == score(["the day"], ["good"])


def test_a_reward_model_with_a_chat_template_reads_the_conversation(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ 'a' if m.role == 'user' else 'b' }} {{ m.content }} {% endfor %}"
    model = save_classifier(tmp_path / "model", labels=("LABEL_0",), chat_template=template)
    score = scorer(tmp_path, path=str(model), type="classifier")
    assert score(["the day"], ["good"])[0] == pytest.approx(float(logits(model, "a the day b good ")), abs=1e-6)


def test_a_classifier_of_several_classes_wants_a_label(tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "model", labels=SENTIMENT)
    with pytest.raises(ExecutionError, match="3 classes: negative, neutral, positive"):
        scorer(tmp_path, path=str(model), type="classifier")
    score = scorer(tmp_path, path=str(model), type="classifier", label="positive", separator=" ")
    assert score(["the"], ["day"])[0] == pytest.approx(float(logits(model, "the day")[2]), abs=1e-6)


def test_without_a_type_the_model_s_head_decides(tmp_path: Path) -> None:
    one = save_classifier(tmp_path / "one", labels=("LABEL_0",))
    three = save_classifier(tmp_path / "three", labels=SENTIMENT)
    assert scorer(tmp_path, path=str(one))(["the"], ["day"])[0] == pytest.approx(float(logits(one, "the day")))
    assert abs(scorer(tmp_path, path=str(three))(["the"], ["day"])[0]) <= 1


def lengths(prompts: list[str], completions: list[str]) -> Any:
    return torch.tensor([len(prompt) + 100 * len(text) for prompt, text in zip(prompts, completions, strict=True)])


def test_a_function_of_prompts_and_completions_scores(tmp_path: Path) -> None:
    score = scorer(tmp_path, type="function", identifier=f"{__name__}:lengths")
    assert score(PROMPTS, COMPLETIONS) == [907.0, 2.0]
    assert score([[{"role": "user", "content": "four"}]], ["a"]) == [104.0]
    without_type = scorer(tmp_path, identifier=f"{__name__}:lengths")
    assert without_type(PROMPTS, COMPLETIONS) == [907.0, 2.0]


def test_a_function_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "rewarding-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rewarding\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mloc.rewards]\nbrevity = rewarding:brevity\n")
    (tmp_path / "rewarding.py").write_text(
        "def brevity(prompts, completions):\n    return [-len(c) for c in completions]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert scorer(tmp_path, type="function", identifier="brevity")(PROMPTS, COMPLETIONS) == [-9.0, 0.0]
    sys.modules.pop("rewarding")
    with pytest.raises(ExecutionError, match="no package on this worker brings the reward function 'length'"):
        scorer(tmp_path, type="function", identifier="length")


def raises(prompts: list[str], completions: list[str]) -> list[float]:
    raise KeyError("tone")


def wrong(prompts: list[str], completions: list[str]) -> Any:
    return GIVEN


GIVEN: Any = None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (0.5, "returned float, not a list of numbers"),
        ("ab", "returned str, not a list"),
        ([1.0], "returned 1 rewards for 2 completions"),
        ([1.0, None], "None among its rewards"),
        ([1.0, float("nan")], "gave nan for the completion ''"),
        ([float("inf"), 0.0], "gave inf for the completion 'good good'"),
    ],
)
def test_what_is_not_one_finite_number_each_is_refused(
    given: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "GIVEN", given)
    with pytest.raises(ExecutionError, match=said):
        scorer(tmp_path, type="function", identifier=f"{__name__}:wrong")(PROMPTS, COMPLETIONS)


def test_a_function_s_own_error_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"raises raised KeyError: 'tone'"):
        scorer(tmp_path, type="function", identifier=f"{__name__}:raises")(PROMPTS, COMPLETIONS)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda path: scorer(path, identifier="no_such_module_anywhere:f"), ExecutionError, "cannot be imported"),
        (
            lambda path: scorer(path, identifier=f"{__name__}:PROMPTS", type="function"),
            ExecutionError,
            "not a function",
        ),
        (lambda path: scorer(path, path=str(path), type="sentiment"), ModelError, "holds"),
        (lambda path: scorer_of(None, separator=None, device="cpu", cache_dir=path), ExecutionError, "what scores"),
    ],
)
def test_a_reward_model_that_is_none_is_refused(
    make: Callable[[Path], Scorer], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        make(tmp_path)
