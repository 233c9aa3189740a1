"""What a host finds around it: modules, environment, devices, interpreter."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

import mloc_tasks
from mloc_tasks.errors import ConfigError
from mloc_tasks.host.devices import Devices
from mloc_tasks.host.environment import environment
from mloc_tasks.host.interpreters import interpreter, variable
from tests.host.conftest import Hosts, StartPool
from tests.plugins.mloc_test_script import ScriptExecutor
from tests.waiting import wait_until

SERVICES = {"celery", "kombu", "redis", "boto3", "botocore", "billiard"}
SECRETS = {
    "REDIS_URL": "redis://:secret@host",
    "MLOC_BROKER_URL": "amqp://user:secret@host",
    "CELERY_RESULT_BACKEND": "redis://:secret@host",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "secret",
}


def test_a_host_imports_nothing_of_the_services_nor_of_the_models(hosts: Hosts) -> None:
    imported = {name.partition(".")[0] for name in hosts.run(["modules"])["modules"]}
    assert not imported & {*SERVICES, "torch", "transformers"}


def test_what_leads_to_the_services_does_not_reach_it(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, "HF_HOME": "/models"}.items():
        monkeypatch.setenv(name, value)
    seen = hosts.run(["environment"])["environment"]
    assert not SECRETS.keys() & seen.keys()
    assert "secret" not in "".join(seen.values())
    assert seen["HF_HOME"] == "/models"


def test_processes_that_it_spawns_find_the_same_package(hosts: Hosts) -> None:
    assert hosts.run(["spawn"])["spawn"] == str(Path(mloc_tasks.__file__).parent)


def test_a_worker_with_many_open_files_starts_hosts_all_the_same(hosts: Hosts) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2_000:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2_000, hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_500)]
    try:
        hosts.run()
        assert isinstance(hosts.start(["end", 3]).error(), Exception)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_host_that_has_gone_leaves_no_descriptor_and_no_thread(pool: StartPool) -> None:
    def use(keys: str) -> None:
        hosts = pool()
        for key in keys:
            hosts.run(key=key)
        hosts.pool.close()
        hosts.threads.shutdown()

    def held() -> int:
        return len(os.listdir("/proc/self/fd")) + threading.active_count()

    use("a")  # whatever is opened once
    wait_until(lambda: not any(thread.name.startswith("mloc-host") for thread in threading.enumerate()))
    before = held()
    use("abc")
    wait_until(lambda: held() <= before)


def test_a_bound_host_runs_on_its_cpus_alone(hosts: Hosts) -> None:
    first = min(os.sched_getaffinity(0))
    hosts.pool._devices = Devices(gpus=(), cpus=(first,))
    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("this machine has one CPU")
    assert hosts.run(["cpus"])["cpus"] == [first]


def test_a_family_is_one_variable() -> None:
    assert variable("my-vllm.2") == "MLOC_PYTHON_MY_VLLM_2"


def test_without_it_the_interpreter_is_the_worker_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_PYTHON_SCRIPT", " ")
    assert interpreter(ScriptExecutor) == sys.executable


@pytest.mark.parametrize("path", ["/no/such/python", "/etc", "no-such-python"])
def test_a_wrong_path_is_an_error_that_names_the_variable(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("MLOC_PYTHON_SCRIPT", path)
    with pytest.raises(ConfigError, match=f"MLOC_PYTHON_SCRIPT={path}: no such Python on this worker"):
        hosts.run()


def test_a_program_that_is_no_python_is_an_error_that_says_so(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_PYTHON_SCRIPT", "/bin/false")
    error = hosts.start().error()
    assert isinstance(error, ConfigError)
    assert "ended with exit code 1 before it was ready, under /bin/false" in str(error)


def test_another_interpreter_finds_the_programs_beside_it_and_not_our_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    seen = environment("/opt/vllm/bin/python", {})
    assert seen["PATH"].startswith("/opt/vllm/bin" + os.pathsep)
    assert "PYTHONPATH" not in seen
