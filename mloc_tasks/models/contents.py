"""What lies in a model's file or directory, told by looking: GGUF, archive, adapter, training checkpoint, model."""

from __future__ import annotations

from pathlib import Path

from mloc_tasks.artifacts.archives import SUFFIXES

ADAPTER_CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"
PPO_STATE = "ppo_state.pt"
_TRAINER_STATE = "trainer_state.json"
_OPTIMIZER_STATES = ("optimizer*", "global_step*")  # of transformers' trainer; of DeepSpeed under it
_SHOWN_NAMES = 8
_WEB_PAGE = "it is a web page"


def is_gguf(path: Path) -> bool:
    """Whether the file says that it is one."""
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def is_adapter(path: Path) -> bool:
    """Whether a directory holds a LoRA adapter and no model of its own."""
    return (path / ADAPTER_CONFIG).is_file() and not (path / MODEL_CONFIG).is_file()


def is_ppo_checkpoint(path: Path) -> bool:
    """Whether a directory holds a PPO training, which is no model: the frozen weights are not in it."""
    return (path / PPO_STATE).is_file()


def kind_of(path: Path) -> str:
    """`checkpoint` (with optimizer state, so that training can go on), `adapter`, `model`, or "" for none of them."""
    if is_ppo_checkpoint(path):
        return "checkpoint"
    if (path / _TRAINER_STATE).is_file() and any(any(path.glob(pattern)) for pattern in _OPTIMIZER_STATES):
        return "checkpoint"
    if is_adapter(path):
        return "adapter"
    if path.is_file() or (path / MODEL_CONFIG).is_file() or any(path.glob("*.gguf")):
        return "model"
    return ""


def innermost(directory: Path) -> Path:
    """The directory itself, or the one that all of it lies in: archives often hold one folder with everything."""
    while True:
        entries = list(directory.iterdir())
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].is_symlink():
            return directory
        directory = entries[0]


def describe(path: Path) -> str:
    """What is there, for an error's text: the first names of a directory, the beginning of a file."""
    if path.is_dir():
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in path.iterdir())
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        return f"it holds {', '.join(names[:_SHOWN_NAMES]) or 'nothing'}{more}"
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "it is an empty file"
    if start.lstrip()[:1] == b"<":
        return _WEB_PAGE
    return f"it is a file that begins with {start[:16]!r}"


def hint_for(file: Path) -> str:
    """What to do about a file that is neither a GGUF nor an archive that can be unpacked."""
    found = describe(file)
    if found == _WEB_PAGE:
        return f"{found}; give the address that downloads the file, or for a model of the Hub type: huggingface"
    return f"{found}; a single file must be a .gguf or an intact archive of a directory ({', '.join(SUFFIXES)})"
