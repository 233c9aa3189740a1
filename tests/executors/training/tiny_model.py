"""A real causal language model of some ten thousand parameters, made in a folder: letters are its tokens."""

from __future__ import annotations

import string
from pathlib import Path

LETTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(folder: Path, *, chat: bool = True, dropout: float = 0.0, seed: int = 0) -> Path:
    """Save a Llama of 2 layers with random weights and its tokenizer, which has a chat template when `chat`.

    Its pad token is its end-of-text token, as SmolLM2 has it.
    """
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *LETTERS))}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[0]))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    letters.decoder = decoders.Fuse()
    end = SPECIAL[2] if chat else SPECIAL[0]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters, eos_token=end, pad_token=end, additional_special_tokens=list(SPECIAL)
    )
    tokenizer.chat_template = CHATML if chat else None
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        attention_dropout=dropout,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder
