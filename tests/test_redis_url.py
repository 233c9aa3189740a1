"""REDIS_URL and MLOC_BROKER_URL: what each user of them is told, what is refused, and that no password is shown."""

from __future__ import annotations

import pytest

from mloc_tasks.configuration import celery_settings
from mloc_tasks.errors import ConfigError
from mloc_tasks.redis_url import parse_redis_url, without_password
from mloc_tasks.settings import Settings, get_settings, reset_settings

SENTINELS = "sentinel://u:p%40ss@one:26380/2?master_name=main;sentinel://two?sentinel_password=guard"


@pytest.mark.parametrize(
    ("url", "celery", "client"),
    [
        ("redis://h:6379/0", "redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:pw@h:6379/3", "redis://:pw@h:6379/3", "redis://:pw@h:6379/3"),
        ("valkey://u:pw@h", "redis://u:pw@h", "redis://u:pw@h"),
        ("unix:///run/v.sock?db=2", "redis+socket:///run/v.sock?virtual_host=2", "unix:///run/v.sock?db=2"),
        ("redis+socket:///run/v.sock", "redis+socket:///run/v.sock", "unix:///run/v.sock"),
    ],
)
def test_an_address_is_spelled_for_each_user(url: str, celery: str, client: str) -> None:
    found = parse_redis_url(url)
    assert (found.celery, found.client, found.transport_options) == (celery, client, {})


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls_checks_the_certificate_unless_told_not_to(scheme: str) -> None:
    assert parse_redis_url(f"{scheme}://h:6380/0").celery == "rediss://h:6380/0?ssl_cert_reqs=required"
    named = parse_redis_url(f"{scheme}://h/0?ssl_cert_reqs=CERT_NONE&ssl_ca_certs=/etc/ca.pem")
    assert named.celery == named.client == "rediss://h/0?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem"


def test_sentinels_are_asked_for_the_master() -> None:
    found = parse_redis_url(SENTINELS)
    assert found.celery == "sentinel://u:p%40ss@one:26380/2;sentinel://u:p%40ss@two:26379/2"
    assert found.sentinels == (("one", 26380), ("two", 26379))
    assert found.master_options == {"db": 2, "username": "u", "password": "p@ss"}
    conf = celery_settings(Settings(redis_url=SENTINELS))
    assert conf["result_backend"].startswith("mloc_tasks.backend:SentinelCanvasBackend+sentinel://u:")
    for options in (conf["broker_transport_options"], conf["result_backend_transport_options"]):
        assert (options["master_name"], options["sentinel_kwargs"]) == ("main", {"password": "guard"})


def test_the_master_has_the_name_that_sentinels_examples_use() -> None:
    assert parse_redis_url("sentinel://one").master_name == "mymaster"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis//h", "not a URL"),
        ("http://:secret@h", "http:// is not known"),
        ("amqp://u:secret@h//", "amqp:// is not known"),
        ("redis://:sec/ret@h:1/0", "%2F"),
        ("redis://:sec:ret@h:port/0", "%3A"),
        ("redis://:secret@h/zero", "the database is a number"),
        ("redis://one;redis://two", "several servers are Sentinels"),
        ("rediss://:secret@h?ssl_cert_reqs=maybe", "ssl_cert_reqs is one of"),
        ("sentinel://one?mastername=m", "mastername: with Sentinels there are master_name"),
        ("unix://:secret@/run/v.sock", "a Unix socket has no"),
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    reset_settings()
    with pytest.raises(ConfigError) as refused:
        get_settings()
    reset_settings()
    assert says in str(refused.value)
    assert "REDIS_URL=" in str(refused.value)
    assert "sec" not in str(refused.value).replace("sentinel", "")


def test_another_broker_than_rabbitmq_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_BROKER_URL", "kafka://u:secret@h")
    reset_settings()
    with pytest.raises(ConfigError, match=r"MLOC_BROKER_URL='kafka://u:\*\*\*@h': .*write amqp://"):
        get_settings()
    reset_settings()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h/0", "redis://h/0"),
        ("redis://:a@b/c@h/0", "redis://:***@h/0"),
        ("amqp://u:a;b@h//", "amqp://u:***@h//"),
        (
            "sentinel://u:p@one;sentinel://u:p@two/0?sentinel_password=g&master_name=m",
            "sentinel://u:***@one;sentinel://u:***@two/0?sentinel_password=***&master_name=m",
        ),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_rabbitmq_is_the_broker_and_redis_keeps_the_rest() -> None:
    conf = celery_settings(
        Settings(redis_url="redis://h/0", broker_url="amqp://u:p@rabbit//", task_topics=("tasks.a.b",))
    )
    assert conf["broker_url"] == "amqp://u:p@rabbit//"
    assert conf["result_backend"].endswith("redis://h/0")
    assert conf["broker_transport_options"] == {"confirm_publish": True}
    (queue,) = conf["task_queues"]
    assert (queue.name, queue.routing_key) == ("a.b", "a%2Eb")
    assert queue.queue_arguments["x-queue-type"] == "quorum"
    assert "worker_disable_prefetch" not in conf
