"""GGUF files, converted once to what Transformers loads fast: bf16 safetensors beside their tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mloc_tasks.errors import ModelError
from mloc_tasks.models.build_once import build_once
from mloc_tasks.models.digest import file_digest

# Part of the cache key: raise it when the conversion writes something else.
CONVERSION = 1


def convert(path: Path, *, cache_dir: Path, log: Callable[[str], None] = lambda message: None) -> Path:
    """The directory with `path` converted, made now if it is not in the cache; keyed by the file's digest.

    Raises ModelError when the file cannot be read as a model, or the cache cannot be written.
    """
    try:
        digest = file_digest(path, cache_dir=cache_dir)
        target = cache_dir / "models" / f"gguf-{digest[:32]}-v{CONVERSION}"
        if not target.is_dir():
            log(f"converting {path.name} (once; it is kept in {target})")
        build_once(target, lambda staging: _convert_into(staging, path))
    except OSError as error:
        raise ModelError(
            f"cannot convert {path}: {error}",
            hint=f"the cache {cache_dir} must be writable and have room; MLOC_CACHE_DIR chooses another",
        ) from error
    return target


def _convert_into(directory: Path, path: Path) -> None:
    with path.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file: its first four bytes are not 'GGUF'")
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    except ImportError as error:
        message = f"reading GGUF files needs torch and transformers: {error}"
        raise ModelError(message, hint="pip install 'mloc[inference]'") from error
    folder, name = str(path.parent), path.name
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        packed: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
    except (ValueError, KeyError, NotImplementedError, ImportError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be read as a model: {error}") from error
    model = _unquantized(packed)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _unquantized(packed: Any) -> Any:
    """The same weights in a model that does not know it came from GGUF (`save_pretrained` refuses one that does)."""
    import torch
    import transformers

    auto_model: Any = transformers.AutoModelForCausalLM  # its `from_config` has no annotations
    settings = {key: value for key, value in packed.config.to_dict().items() if key != "quantization_config"}
    config = type(packed.config).from_dict(settings)
    with torch.device("meta"):
        model = auto_model.from_config(config, dtype=packed.dtype)
    model.load_state_dict(packed.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = packed.generation_config
    return model
