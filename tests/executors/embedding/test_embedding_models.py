"""Pooling, and what a model's own files say about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import ModelError
from mloc_tasks.executors.embedding.model_card import ModelCard, read_card
from mloc_tasks.models import ModelFiles

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def test_pooling_leaves_padding_out() -> None:
    from mloc_tasks.executors.embedding.transformers_encoder import pooled

    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[5.0, 5.0], [6.0, 6.0], [7.0, 7.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pooled(states, mask, "mean").tolist() == [[2.0, 3.0], [6.0, 6.0]]
    assert pooled(states, mask, "cls").tolist() == [[1.0, 2.0], [5.0, 5.0]]
    assert pooled(states, mask, "last").tolist() == [[3.0, 4.0], [7.0, 7.0]]


def card_of(folder: Path, files: dict[str, Any]) -> ModelCard:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_card(ModelFiles(name="m", location=str(folder)))


def modules(*kinds: str) -> list[dict[str, str]]:
    return [
        {"path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]


def test_a_model_without_such_files_says_nothing(tmp_path: Path) -> None:
    assert card_of(tmp_path, {"config.json": {}}) == ModelCard()


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "mean+max_tokens"),
    ],
)
def test_the_pooling_that_a_model_was_trained_with(config: dict[str, Any], pooling: str, tmp_path: Path) -> None:
    files = {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": config}
    assert card_of(tmp_path, files).pooling == pooling


def test_scaling_length_prefix_and_further_steps(tmp_path: Path) -> None:
    card = card_of(
        tmp_path,
        {
            "modules.json": modules("Transformer", "Pooling", "Dense", "Normalize"),
            "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
            "sentence_bert_config.json": {"max_seq_length": 128},
            "config_sentence_transformers.json": {"prompts": {"q": "query: "}, "default_prompt_name": "q"},
        },
    )
    assert (card.normalized, card.max_length, card.prefix, card.other_modules) == (True, 128, "query: ", ("Dense",))


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modules\.json of the model m"):
        card_of(tmp_path, {"modules.json": "{"})
