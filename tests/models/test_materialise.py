"""What a document names by address is a path on this machine by the time that an executor sees it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer
from model_directories import Lines, filled, names_below

from mloc_tasks.artifacts import open_store, pack
from mloc_tasks.artifacts.s3_connection import S3Settings, connect
from mloc_tasks.errors import ModelError, ModelUnavailableError
from mloc_tasks.models.materialise import materialise

ArchiveOf = Callable[[Path, str], Path]
GGUF = b"GGUF" + bytes(100)
MODEL_NAMES = ["config.json", "extra/notes.txt", "model.safetensors"]


class Materialised:
    """The parts of one document, materialised with a cache of their own."""

    def __init__(self, cache_dir: Path, log: Lines) -> None:
        self.cache_dir = cache_dir
        self.log = log

    def __call__(self, document: dict[str, Any]) -> dict[str, Any]:
        with materialise(document, cache_dir=self.cache_dir, log=self.log) as found:
            return found

    def source(self, identifier: str, **source: Any) -> Path:
        found = self({"model": {"source": {"identifier": identifier, **source}}})["model"]["source"]
        assert found["type"] == "local"
        return Path(found["identifier"])

    def adapter(self, **adapter: str) -> Path:
        (found,) = self({"model": {"adapters": [{"name": "mine", **adapter}]}})["model"]["adapters"]
        assert found.keys() == {"name", "path"}
        return Path(found["path"])

    def checkpoint(self, **load: str) -> dict[str, Any]:
        found: dict[str, Any] = self({"checkpoint": {"load": load}})["checkpoint"]["load"]
        return found


@pytest.fixture
def local(tmp_path: Path, lines: Lines) -> Materialised:
    return Materialised(tmp_path / "cache", lines)


def put_objects(bucket: str, directory: Path, prefix: str) -> None:
    """As any S3 tool would put them: object by object, without a manifest."""
    store = open_store(bucket)
    for name in names_below(directory):
        store.put_file(directory / name, f"{prefix}/{name}")


def test_names_of_the_hub_and_of_packages_stay_and_nothing_is_touched(local: Materialised) -> None:
    for source in (
        {"identifier": "acme/tiny", "revision": "main"},
        {"type": "huggingface", "identifier": "acme/tiny"},
        {"type": "package", "identifier": "tiny_model/weights.gguf"},
    ):
        document = {"task_type": "inference", "model": {"source": source, "vllm": {"x": 1}}, "inference": {"n": 2}}
        assert local(document) == document
    assert not local.cache_dir.exists()


def test_document_that_is_given_is_not_changed(local: Materialised, model_dir: Path, archive_of: ArchiveOf) -> None:
    document = {"model": {"source": {"type": "local", "identifier": str(archive_of(model_dir, "m.tar"))}}}
    before = str(document)
    assert local(document) != document
    assert str(document) == before


@pytest.mark.parametrize("kind", ["huggingface", "local"])
def test_directory_of_this_machine_is_used_in_place(local: Materialised, model_dir: Path, kind: str) -> None:
    assert local.source(str(model_dir), type=kind) == model_dir
    assert local.source(model_dir.as_uri(), type=kind) == model_dir
    assert local.log == []


def test_relative_path_becomes_absolute(local: Materialised, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_dir.parent)
    assert local.source("model", type="local") == model_dir


def test_what_belongs_to_a_hub_repository_is_dropped(local: Materialised, model_dir: Path) -> None:
    source = {"type": "local", "identifier": str(model_dir), "revision": "main", "trust_remote_code": True}
    assert local({"model": {"source": source}})["model"]["source"] == {
        "type": "local",
        "identifier": str(model_dir),
        "trust_remote_code": True,
    }


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst", ".tar", ".zip"])
def test_archive_of_this_machine_is_unpacked(
    local: Materialised, model_dir: Path, archive_of: ArchiveOf, suffix: str
) -> None:
    archive = archive_of(model_dir, f"model{suffix}")
    assert names_below(local.source(str(archive), type="local")) == MODEL_NAMES
    assert names_below(local.source(archive.as_uri())) == MODEL_NAMES
    assert local.log.fetches == 1
    assert archive.exists()


def test_folder_that_holds_all_of_an_archive_is_entered(
    local: Materialised, tmp_path: Path, model_dir: Path, archive_of: ArchiveOf
) -> None:
    shutil.copytree(model_dir, tmp_path / "outer" / "run" / "final_model")
    assert names_below(local.source(str(archive_of(tmp_path / "outer", "m.tar.gz")))) == MODEL_NAMES


def test_archive_comes_from_a_web_server(
    local: Materialised, server: FileServer, model_dir: Path, archive_of: ArchiveOf
) -> None:
    server.files["/m/model.tar.gz"] = archive_of(model_dir, "model.tar.gz").read_bytes()
    for sizes_known in (True, False):
        server.sizes_known = sizes_known
        path = local.source(f"{server.url}/m/model.tar.gz", type="http")
        assert names_below(path) == MODEL_NAMES
    assert len(list(local.cache_dir.rglob("*.tar.gz"))) == 0


@pytest.mark.parametrize("path", ["/tiny.Q4_1.gguf", "/download"])
def test_gguf_comes_from_a_web_server_as_a_file(local: Materialised, server: FileServer, path: str) -> None:
    server.files[path] = GGUF
    found = local.source(f"{server.url}{path}?signature=secret", type="http")
    assert found.read_bytes() == GGUF
    assert found.suffix == ".gguf"
    assert "secret" not in " ".join(local.log)


@pytest.mark.parametrize("kind", ["s3", "huggingface"])
def test_archive_gguf_and_directory_come_from_s3(
    local: Materialised, bucket: str, tmp_path: Path, model_dir: Path, archive_of: ArchiveOf, kind: str
) -> None:
    store = open_store(bucket)
    store.put_file(archive_of(model_dir, "model.tar.zst"), "models/model.tar.zst")
    store.put_bytes(GGUF, "models/tiny.gguf")
    put_objects(bucket, model_dir, "models/tiny")
    store.put_bytes(b"", "models/tiny-other/config.json")
    assert names_below(local.source(f"{bucket}/models/model.tar.zst", type=kind)) == MODEL_NAMES
    assert local.source(f"{bucket}/models/tiny.gguf", type=kind).name == "tiny.gguf"
    for url in (f"{bucket}/models/tiny", f"{bucket}/models/tiny/"):
        assert names_below(local.source(url, type=kind)) == MODEL_NAMES


@pytest.mark.parametrize("where", ["local", "s3"])
def test_output_of_an_earlier_stage_is_a_model(
    local: Materialised, request: pytest.FixtureRequest, tmp_path: Path, model_dir: Path, where: str
) -> None:
    root = f"{request.getfixturevalue('bucket')}/runs" if where == "s3" else str(tmp_path / "results")
    output = filled(tmp_path / "output", {"responses.json": "{}"})
    shutil.copytree(model_dir, output / "final_model")
    pack(model_dir, output / "final_model.tar.gz")
    store = open_store(root)
    store.put_dir(output, "run/train/0/1")
    assert names_below(local.source(store.url_of("run/train/0/1/final_model"))) == MODEL_NAMES
    assert names_below(local.source(store.url_of("run/train/0/1/final_model.tar.gz"))) == MODEL_NAMES
    checkpoint = local.checkpoint(url=store.url_of("run/train/0/1/final_model"))
    assert checkpoint["type"] == "model"
    if where == "local":
        assert checkpoint["path"] == str(tmp_path / "results/run/train/0/1/final_model")
    whole = local.source(store.url_of("run/train/0/1"))
    assert (whole / "final_model/config.json").exists()


def test_adapters_are_directories_with_their_config(
    local: Materialised, server: FileServer, bucket: str, adapter_dir: Path, archive_of: ArchiveOf
) -> None:
    archive = archive_of(adapter_dir, "adapter.zip")
    server.files["/adapter.zip"] = archive.read_bytes()
    put_objects(bucket, adapter_dir, "adapters/mine")
    assert local.adapter(path=str(adapter_dir)) == adapter_dir
    for adapter in (
        {"path": str(archive)},
        {"url": archive.as_uri()},
        {"url": f"{server.url}/adapter.zip"},
        {"url": f"{bucket}/adapters/mine"},
    ):
        assert (local.adapter(**adapter) / "adapter_config.json").exists()


def test_what_is_no_adapter_is_named(local: Materialised, model_dir: Path) -> None:
    with pytest.raises(ModelError) as caught:
        local.adapter(path=str(model_dir))
    assert str(caught.value) == (
        f"model.adapters[mine]: {model_dir} has no adapter_config.json; it holds config.json, extra/, model.safetensors"
    )


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["config.json"], "model"),
        (["tiny.gguf"], "model"),
        (["adapter_config.json"], "adapter"),
        (["config.json", "trainer_state.json", "optimizer.pt"], "checkpoint"),
        (["adapter_config.json", "trainer_state.json", "optimizer.pt"], "checkpoint"),
        (["config.json", "trainer_state.json"], "model"),
        (["ppo_state.pt"], "checkpoint"),
        (["other"], "auto"),
    ],
)
def test_kind_of_a_checkpoint_is_told_by_looking(
    local: Materialised, tmp_path: Path, names: list[str], kind: str
) -> None:
    directory = filled(tmp_path / "saved", dict.fromkeys(names, "{}"))
    assert local.checkpoint(path=str(directory), type="auto") == {"path": str(directory), "type": kind}


def test_checkpoint_that_is_not_what_it_is_said_to_be_is_refused(
    local: Materialised, model_dir: Path, adapter_dir: Path
) -> None:
    assert local.checkpoint(path=str(adapter_dir), type="lora")["type"] == "lora"
    with pytest.raises(ModelError, match=r"checkpoint\.load: .*model has no adapter_config\.json"):
        local.checkpoint(path=str(model_dir), type="lora")
    with pytest.raises(ModelError, match="holds a LoRA adapter, not a model"):
        local.checkpoint(path=str(adapter_dir), type="model")


def test_reward_model_gets_a_path(local: Materialised, bucket: str, model_dir: Path) -> None:
    put_objects(bucket, model_dir, "reward")
    for key in ("url", "identifier"):
        found = local({"reward_model": {key: f"{bucket}/reward", "label": "positive"}})["reward_model"]
        assert found.keys() == {"path", "label"}
        assert names_below(Path(found["path"])) == MODEL_NAMES


@pytest.mark.parametrize(
    "reward_model",
    [
        {"identifier": "acme/judge", "type": "sentiment"},
        {"identifier": "package.module:function", "type": "function"},
        {"identifier": "package.module:function"},
        {"identifier": "vader", "type": "function"},
    ],
)
def test_reward_model_of_the_hub_and_reward_function_stay(local: Materialised, reward_model: dict[str, str]) -> None:
    assert local({"reward_model": reward_model}) == {"reward_model": reward_model}
    assert not local.cache_dir.exists()


@pytest.mark.parametrize("name", ["final_model.tar.gz", "final_model.tar.zst", "final_model.zip"])
def test_reward_model_that_an_earlier_stage_trained(
    local: Materialised, server: FileServer, tmp_path: Path, model_dir: Path, archive_of: ArchiveOf, name: str
) -> None:
    archive = archive_of(model_dir, name)
    store = open_store((tmp_path / "results").as_uri())
    store.put_dir(model_dir, "run/reward/0/1/final_model")
    store.put_file(archive, f"run/reward/0/1/{name}")
    server.files[f"/{name}"] = archive.read_bytes()

    def path_of(url: str) -> Path:
        found = local({"reward_model": {"url": url, "type": "reward"}})["reward_model"]
        assert found.keys() == {"path", "type"}
        return Path(found["path"])

    in_place = path_of(store.url_of("run/reward/0/1/final_model"))
    assert in_place.samefile(tmp_path / "results/run/reward/0/1/final_model")
    assert names_below(path_of(store.url_of(f"run/reward/0/1/{name}"))) == MODEL_NAMES
    assert names_below(path_of(f"{server.url}/{name}")) == MODEL_NAMES


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"type": "s3", "identifier": "models/tiny"}, "'models/tiny' is no address.*s3://BUCKET/PREFIX"),
        ({"type": "http", "identifier": "/models/tiny"}, "'/models/tiny' is no address.*https://HOST/PATH"),
        ({"type": "s3", "identifier": "s3://bucket"}, "names no object"),
        ({"type": "local", "identifier": "/absent/model"}, "nothing is at /absent/model on this worker"),
        ({"type": "http", "identifier": "https://host/models/tiny/"}, "is a folder, which a web server cannot send"),
        ({"identifier": "ftp://host/model"}, "ftp:// addresses cannot be read"),
    ],
)
def test_addresses_that_cannot_work_are_explained(local: Materialised, source: dict[str, str], words: str) -> None:
    with pytest.raises(ModelError) as caught:
        local({"model": {"source": source}})
    assert not caught.value.retryable
    said = f"{caught.value} {caught.value.hint}"
    assert said.startswith("model.source.identifier: ")
    assert re.search(words, said)


def test_nothing_at_an_address_is_final(local: Materialised, server: FileServer, bucket: str) -> None:
    for url in (f"{server.url}/absent.tar.gz?key=secret", f"{bucket}/absent", f"{bucket}/absent/"):
        with pytest.raises(ModelError, match="nothing is at") as caught:
            local.source(url)
        assert not caught.value.retryable
        assert "secret" not in str(caught.value)
    with pytest.raises(ModelError, match="bucket"):
        local.source("s3://mloc-test-no-such-bucket/model")


def test_server_that_does_not_answer_may_come_back(
    local: Materialised, server: FileServer, moto_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/model.tar"] = b"x"
    server.status = 503
    with pytest.raises(ModelUnavailableError, match="503"):
        local.source(f"{server.url}/model.tar")
    with pytest.raises(ModelUnavailableError):
        local.source("http://127.0.0.1:9/model.tar")
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ModelUnavailableError, match="does not answer"):
        local.source("s3://bucket/model")


def test_server_that_refuses_says_what_it_wants(local: Materialised, server: FileServer) -> None:
    server.status = 403
    with pytest.raises(ModelError, match="403") as caught:
        local.source(f"{server.url}/model.tar")
    assert "credentials" in caught.value.hint


def test_web_page_damaged_and_hostile_archives_are_refused_and_leave_nothing(
    local: Materialised, server: FileServer, model_dir: Path, archive_of: ArchiveOf
) -> None:
    server.files["/page"] = b"<!doctype html><title>acme/tiny</title>"
    server.files["/half.tar.gz"] = archive_of(model_dir, "whole.tar.gz").read_bytes()[:-20]
    server.files["/weights"] = b"\x08\x00\x00\x00weights"
    server.files["/empty"] = b""
    for path, words in (
        ("/page", "it is a web page"),
        ("/half.tar.gz", "intact archive"),
        ("/weights", "begins with b'"),
        ("/empty", "empty file"),
    ):
        with pytest.raises(ModelError) as caught:
            local.source(f"{server.url}{path}", type="http")
        assert words in caught.value.hint
        assert f"{server.url}{path}" in str(caught.value)
        assert str(local.cache_dir) not in str(caught.value)
    assert all(name.endswith(".lock") for name in names_below(local.cache_dir))


def test_stored_file_that_was_changed_behind_its_manifest_is_refused(
    local: Materialised, bucket: str, tmp_path: Path, model_dir: Path
) -> None:
    output = tmp_path / "output"
    shutil.copytree(model_dir, output / "final_model")
    pack(model_dir, output / "final_model.tar")
    store = open_store(bucket)
    store.put_dir(output, "run/train/0/1")
    length = (output / "final_model.tar").stat().st_size
    store.put_bytes(b"!" * len("weights"), "run/train/0/1/final_model/model.safetensors")
    with pytest.raises(ModelError, match="not what its manifest says"):
        local.source(f"{bucket}/run/train/0/1/final_model")
    client = connect(S3Settings.from_environment()).client
    body = (output / "final_model.tar").read_bytes()[:-1] + b"!"
    assert len(body) == length
    client.put_object(Bucket=bucket.removeprefix("s3://"), Key="run/train/0/1/final_model.tar", Body=body)
    with pytest.raises(ModelError, match="not what its manifest says"):
        local.source(f"{bucket}/run/train/0/1/final_model.tar")
