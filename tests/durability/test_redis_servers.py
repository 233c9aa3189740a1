"""Whole runs, chords included, over a Redis with a password, behind TLS, and found by a Sentinel."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from mloc_tasks.ledger import Ledger, State
from mloc_tasks.settings import reset_settings
from scheduler import submit_yaml
from scheduler.embedded import LocalWorker, PrivateValkey, server_binary, spawn
from tests.durability.conftest import PLUGINS, document, rows
from tests.durability.rabbitmq_node import LOOPBACK, reserved_ports
from tests.waiting import wait_until

PASSWORD = "s3cr3t-w0rd"
WAIT_SEC = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="mloc-test-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def sentinel_port() -> Iterator[int]:
    """A port for a Sentinel."""
    with reserved_ports(1) as (number,):
        yield number


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    """A Valkey on this port of loopback, for its default user and for `mloc`, both with the password."""
    with reserved_ports(1) as (number,):
        server = PrivateValkey(folder, options=("--port", str(number), "--bind", LOOPBACK))
        server.start()
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "mloc", "on", f">{PASSWORD}", "~*", "&*", "+@all")
            client.config_set("masterauth", PASSWORD)
            client.config_set("requirepass", PASSWORD)
        yield number
        server.stop()


def run_over(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sharded stage and one after it, with a worker of their own; nothing that it says holds the password."""
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(PLUGINS))
    reset_settings()
    log = tmp_path / "worker.log"
    worker = LocalWorker(("cpu",), log=log, concurrency=1)
    worker.start()
    try:
        sharded = {"taskType": "slow", "data": rows(4), "seconds": 0.0, "parallel": {"enabled": True, "shard_size": 2}}
        stages = [
            {"name": "many", **sharded},
            {"name": "last", "taskType": "echo", "message": "${many.items[3].output}"},
        ]
        run = submit_yaml(document({"stages": stages}))
        assert run.wait(WAIT_SEC) is State.DONE
        assert run.result()["message"] == "row 3!"
        assert {event.kind for event in Ledger.connect().events(run.id)} >= {"run", "shard"}
    finally:
        worker.stop(idle=True)
        monkeypatch.undo()
        reset_settings()
    assert "ready." in log.read_text()
    assert PASSWORD not in log.read_text()


@pytest.mark.parametrize("user", ["", "mloc"])
def test_a_password_and_a_database_number(
    user: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_over(f"redis://{user}:{PASSWORD}@{LOOPBACK}:{port}/3", tmp_path, monkeypatch)
    with redis.Redis(port=port, password=PASSWORD) as client:
        assert set(client.info("keyspace")) == {"db3"}


def test_tls_with_a_certificate_of_ones_own(
    port: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(folder)
    with TlsFront(port, certificate, key) as front:
        address = f":{PASSWORD}@{LOOPBACK}:{front.port}/0"
        run_over(f"rediss://{address}?ssl_ca_certs={certificate}", tmp_path, monkeypatch)
        monkeypatch.setenv("REDIS_URL", f"rediss://{address}")
        reset_settings()
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED") as refused:
            Ledger.connect().ping()
        assert PASSWORD not in str(refused.value)


def test_a_server_that_a_sentinel_names(
    port: int, sentinel_port: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = folder / "sentinel.conf"
    conf.write_text(
        f"port {sentinel_port}\nbind {LOOPBACK}\ndir {folder}\nsentinel monitor main {LOOPBACK} {port} 1\n"
        f"sentinel auth-pass main {PASSWORD}\nrequirepass {PASSWORD}-2\n"
    )
    process = spawn([str(server_binary()), str(conf), "--sentinel"], folder / "sentinel.log", os.environ)
    try:
        with redis.Redis(port=sentinel_port, password=f"{PASSWORD}-2") as client:
            wait_until(lambda: _knows_master(client), why=(folder / "sentinel.log").read_text)
        url = f"sentinel://:{PASSWORD}@{LOOPBACK}:{sentinel_port}/1?master_name=main&sentinel_password={PASSWORD}-2"
        run_over(url, tmp_path, monkeypatch)
    finally:
        process.kill()
        process.wait()
    with redis.Redis(port=port, password=PASSWORD) as client:
        assert set(client.info("keyspace")) == {"db1"}


def _knows_master(sentinel: Any) -> bool:
    try:
        return bool(sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"))
    except redis.exceptions.RedisError:
        return False


class TlsFront:
    """TLS in front of a server's plain port, as stunnel does it: the embedded Valkey is built without."""

    def __init__(self, behind: int, certificate: Path, key: Path) -> None:
        self._behind = behind
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> TlsFront:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            secure = self._context.wrap_socket(client, server_side=True)
        except (OSError, ssl.SSLError):
            return
        server = socket.create_connection((LOOPBACK, self._behind))
        threading.Thread(target=_pump, args=(server, secure), daemon=True).start()
        _pump(secure, server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for loopback that is its own authority, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mloc test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    files = folder / "server.pem", folder / "server.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return files
