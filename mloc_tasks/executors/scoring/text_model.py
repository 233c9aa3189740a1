"""A sequence-classification model of any kind, with its own tokenizer: texts in, logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ModelError
from mloc_tasks.models import ModelFiles

if TYPE_CHECKING:
    import torch

BATCH_SIZE = 16
HEADS = frozenset({"score", "classifier"})
"""What models call the layer that scores."""

_UNLIMITED_TOKENS = 10**9
"""Some tokenizers say "no limit" by a number like 10**30."""


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """A reward model in memory.

    Attributes:
        labels: the names of its classes, by number.
        reads_last_token: it is a decoder, whose head looks at a text's last token.
        most_tokens: of a text; the rest is cut where the tokenizer cuts. None: no limit is known.
    """

    name: str
    model: Any
    tokenizer: Any
    labels: Mapping[int, str]
    reads_last_token: bool
    most_tokens: int | None
    batch_size: int

    def logits(self, texts: Sequence[str], *, special_tokens: bool = True) -> torch.Tensor:
        """[texts, classes], float32, on the CPU; those of like length are computed together.

        Args:
            special_tokens: the tokenizer adds those that it begins or ends a text with.
        """
        import torch

        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        logits = torch.zeros((len(texts), len(self.labels)))
        with torch.inference_mode():
            for begin in range(0, len(order), self.batch_size):
                rows = order[begin : begin + self.batch_size]
                encoded = self.tokenizer(
                    [texts[row] for row in rows],
                    truncation=self.most_tokens is not None,
                    max_length=self.most_tokens,
                )
                # "" has no token where the tokenizer adds none of its own, and the model nothing to look at.
                ids = [each or [self.tokenizer.pad_token_id] for each in encoded["input_ids"]]
                batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.model.device)
                logits[rows] = self.model(**batch).logits.float().cpu()
        return logits


def load_text_model(files: ModelFiles, *, device: str, batch_size: int | None) -> TextModel:
    """Load a reward model. Raises ModelError when it is no classifier with a tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    common = {"revision": files.revision, "trust_remote_code": files.trust_remote_code}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(files.location, **common)
        dtype = "float32" if device == "cpu" else "auto"
        model, report = AutoModelForSequenceClassification.from_pretrained(
            files.location, dtype=dtype, output_loading_info=True, **common
        )
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(
            f"the reward model {files.name} cannot be loaded: {error}",
            hint="it must be a sequence-classification model with its tokenizer",
        ) from error
    if any(HEADS.intersection(name.split(".")) for name in report["missing_keys"]):
        raise ModelError(
            f"{files.name} is no reward model: it has no head that scores",
            hint="train one by a stage of task type reward, or name a sequence-classification model",
        )
    model.eval().requires_grad_(False)
    return TextModel(
        name=files.name,
        model=model.to(device),
        tokenizer=_with_padding(tokenizer, model),
        labels={int(number): str(label) for number, label in model.config.id2label.items()},
        reads_last_token=hasattr(model, "score"),
        most_tokens=_most_tokens(model, tokenizer),
        batch_size=batch_size or BATCH_SIZE,
    )


def _with_padding(tokenizer: Any, model: Any) -> Any:
    """A decoder with a classification head looks at the last token that is not padding: both must mean the same."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.padding_side = "right"
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return tokenizer


def _most_tokens(model: Any, tokenizer: Any) -> int | None:
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None:
        # RoBERTa and its kin number positions from behind their padding token.
        padding = getattr(getattr(model.base_model, "embeddings", None), "padding_idx", None)
        positions -= 0 if padding is None else padding + 1
    known = [int(each) for each in (positions, tokenizer.model_max_length) if each and 0 < each < _UNLIMITED_TOKENS]
    return min(known, default=None)
