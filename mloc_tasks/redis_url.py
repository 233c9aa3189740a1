"""REDIS_URL, spelled for each that connects with it: Celery's broker and result backend, and redis-py."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

SPELLINGS = {"valkey": "redis", "valkeys": "rediss", "redis+socket": "unix"}
SENTINEL_PORT = 26379
SENTINEL_QUERY = {"master_name", "sentinel_username", "sentinel_password"}
DEFAULT_MASTER = "mymaster"
CERTIFICATES = ("required", "optional", "none")
KNOWN = (
    "write redis://host:6379/0, rediss://host:6379/0 (TLS), unix:///path/to.sock or "
    "sentinel://host:26379;sentinel://host2:26379/0?master_name=mymaster"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RedisUrl:
    """One server, or the Sentinels that know it."""

    celery: str
    client: str = ""  # empty with Sentinels
    sentinels: tuple[tuple[str, int], ...] = ()
    master_name: str = ""
    master_options: dict[str, Any] = field(default_factory=dict)  # db, username, password
    sentinel_options: dict[str, Any] = field(default_factory=dict)  # username, password of the Sentinels themselves

    @property
    def transport_options(self) -> dict[str, Any]:
        """What Celery takes beside the URL, for broker and result backend."""
        if not self.sentinels:
            return {}
        return {"master_name": self.master_name, "sentinel_kwargs": self.sentinel_options}

    def connect(self, **options: Any) -> Any:
        """A redis-py client; connects on first use."""
        import redis
        from redis.sentinel import Sentinel

        if not self.sentinels:
            return redis.Redis.from_url(self.client, **options)
        timeouts = {name: value for name, value in options.items() if name.startswith("socket_")}
        ask: Any = Sentinel  # redis-py gives it no types
        finder = ask(self.sentinels, sentinel_kwargs={**timeouts, **self.sentinel_options})
        return finder.master_for(self.master_name, redis.Redis, **self.master_options, **options)


def parse_redis_url(url: str) -> RedisUrl:
    """Raises ValueError that says what is wrong and repeats no password."""
    servers = [_split(each) for each in _servers(url)]
    schemes = {SPELLINGS.get(each.scheme, each.scheme) for each in servers}
    if schemes == {"sentinel"}:
        return _sentinels(servers)
    if len(servers) > 1:
        raise ValueError(f"several servers are Sentinels, all of them; {KNOWN}")
    server, scheme = servers[0], schemes.pop()
    if scheme == "unix":
        return _socket(server)
    if scheme not in {"redis", "rediss"}:
        raise ValueError(f"{scheme}:// is not known; {KNOWN}" if scheme else f"not a URL; {KNOWN}")
    _database(server)
    query = dict(parse_qsl(server.query))
    if scheme == "rediss":
        # Celery's broker would trust any certificate where nothing is said, and its result backend refuse to start.
        query["ssl_cert_reqs"] = _certificates(query.get("ssl_cert_reqs", CERTIFICATES[0]))
    whole = server._replace(scheme=scheme, query=urlencode(query, safe="/")).geturl()
    return RedisUrl(celery=whole, client=whole)


def without_password(text: str) -> str:
    """A URL, or several, for messages."""
    shown = []
    for url in _servers(text):
        masked = re.sub(r"(://[^/@:]*:).*@", r"\1***@", url)
        shown.append(re.sub(r"(password=)[^&]*", r"\1***", masked))
    return ";".join(shown)


def _servers(text: str) -> list[str]:
    return re.split(r";(?=[\w+]+://)", text)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # The original error may quote a part of the password.
        raise ValueError(
            "host and port cannot be told apart; in a password write %2F for a slash, %3A for a colon, %40 for an @"
        ) from None
    if "@" in parts.path or "@" in parts.query or "@" in parts.fragment:
        raise ValueError("in a password write %2F for a slash, %3F for a question mark, %23 for a hash")
    return parts


def _socket(server: SplitResult) -> RedisUrl:
    if server.netloc:
        raise ValueError("a Unix socket has no host, user or password; write unix:///path/to.sock")
    query = server.query.replace("virtual_host=", "db=")
    celery = f"?{query.replace('db=', 'virtual_host=')}" if query else ""
    return RedisUrl(
        celery=f"redis+socket://{server.path}{celery}", client=f"unix://{server.path}{'?' if query else ''}{query}"
    )


def _sentinels(servers: list[SplitResult]) -> RedisUrl:
    query = {name: value for each in servers for name, value in parse_qsl(each.query)}
    if unknown := query.keys() - SENTINEL_QUERY:
        raise ValueError(f"{', '.join(sorted(unknown))}: with Sentinels there are {', '.join(sorted(SENTINEL_QUERY))}")
    hosts = tuple((each.hostname or "localhost", each.port or SENTINEL_PORT) for each in servers)
    named = next((each for each in servers if each.password), servers[0])
    database = next((number for number in map(_database, servers) if number), 0)
    master: dict[str, Any] = {"db": database}
    login = ""
    if named.password:
        master["password"] = unquote(named.password)
        login = f":{quote(master['password'], safe='')}@"
        if named.username:
            master["username"] = unquote(named.username)
            login = quote(master["username"], safe="") + login
    own = {name: query[f"sentinel_{name}"] for name in ("username", "password") if f"sentinel_{name}" in query}
    return RedisUrl(
        celery=";".join(f"sentinel://{login}{_bracketed(host)}:{port}/{database}" for host, port in hosts),
        sentinels=hosts,
        master_name=query.get("master_name", DEFAULT_MASTER),
        master_options=master,
        sentinel_options=own,
    )


def _database(server: SplitResult) -> int:
    number = server.path.strip("/")
    if number and not number.isdigit():
        raise ValueError(f"the database is a number, not {number!r}; {KNOWN}")
    return int(number or 0)


def _certificates(value: str) -> str:
    known = value.lower().removeprefix("cert_")
    if known not in CERTIFICATES:
        raise ValueError(f"ssl_cert_reqs is one of {', '.join(CERTIFICATES)}, not {value!r}")
    return known


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
