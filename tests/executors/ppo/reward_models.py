"""Tiny sequence-classification models with a tokenizer of words, saved as reward models are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

WORDS = ("good", "bad", "fine", "the", "day", "is", "a", "b", "c", "d", "e", "f", "g", "h")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")


def save_classifier(directory: Path, *, labels: Sequence[str], seed: int = 0, chat_template: str | None = None) -> Path:
    """A RoBERTa of one layer with random weights that knows `WORDS`, at most 20 of them."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = chat_template
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=22,  # positions are numbered from behind the padding token's 0
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    RobertaForSequenceClassification(config).save_pretrained(str(directory))
    tokenizer.save_pretrained(str(directory))
    return directory
