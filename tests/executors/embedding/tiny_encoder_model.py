"""A real encoder model of a few thousand parameters, made in a folder, with the files of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{x}" for x in "abcdexyz"))
DIMENSIONS = 16
MAX_LENGTH = 24


def make_model(
    folder: Path, *, pooling: dict[str, Any] | None = None, normalize: bool = False, prefix: str = ""
) -> Path:
    """Save a BERT with random weights and a word-piece tokenizer; `pooling` is its `1_Pooling/config.json`."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=DIMENSIONS,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    BertModel(config).eval().save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocabulary, model_max_length=32).save_pretrained(folder)
    if pooling is not None:
        _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": DIMENSIONS, **pooling})
        kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalize else [])]
        _write(
            folder / "modules.json",
            [
                {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for number, (kind, path) in enumerate(kinds)
            ],
        )
        (folder / "2_Normalize").mkdir(exist_ok=True)
        _write(folder / "sentence_bert_config.json", {"max_seq_length": MAX_LENGTH, "do_lower_case": False})
        if prefix:
            settings = {"prompts": {"passage": prefix}, "default_prompt_name": "passage"}
            _write(folder / "config_sentence_transformers.json", settings)
    return folder


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
