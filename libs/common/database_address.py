"""DATABASE_URL: the one place that reads a PostgreSQL address, as libpq writes it.

Rule: every parameter is understood or refused by name, before anything is connected to. What is understood reaches the
driver in its own words; what would be left out silently (a promise about encryption above all) is refused. Several
hosts are tried in order, and the one that takes writes is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

SCHEMES = ("postgresql", "postgres")
EXAMPLE = "postgresql://user:password@127.0.0.1:5432/prunella"
# What the driver reads in an address itself.
PASSED = frozenset(
    "sslmode sslcert sslkey sslrootcert sslcrl sslpassword ssl_min_protocol_version ssl_max_protocol_version "  # noqa: SIM905
    "target_session_attrs passfile krbsrvname gsslib".split()
)
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# The plane writes, so a standby is of no use to it.
WRITABLE = ("any", "read-write", "primary")
# Known, and true of what the driver does anyway with these values only.
GIVEN: Mapping[str, tuple[str, ...]] = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "client_encoding": ("auto", "utf8", "utf-8", "unicode"),
    "keepalives": ("1",),
    "load_balance_hosts": ("disable",),
    "sslcompression": ("0",),
    "requirepeer": ("",),
}
DEFAULT_TIMEOUT = 5.0


@dataclass(frozen=True)
class DatabaseAddress:
    """An address that was understood. `timeout` in seconds is for one connection; no password is ""."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str = field(repr=False)
    database: str
    parameters: Mapping[str, str]
    timeout: float = DEFAULT_TIMEOUT
    application_name: str = ""
    options: str = ""

    @property
    def place(self) -> str:
        """Hosts and ports, without anything secret."""
        return ",".join(f"{_bracketed(host)}:{port}" for host, port in self.hosts)

    def as_user(self, user: str, password: str) -> str:
        """The same address for another user, whose password is given."""
        kept = {name: value for name, value in self.parameters.items() if name != "passfile"}
        more = {"connect_timeout": f"{self.timeout:g}" if self.timeout != DEFAULT_TIMEOUT else "",
                "application_name": self.application_name, "options": self.options}  # fmt: skip
        return self._text(user, password, kept | {name: value for name, value in more.items() if value})

    def connect_arguments(self, application_name: str, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The arguments of `asyncpg.connect`; `settings` are those of the session."""
        name = f"{self.application_name} {application_name}".strip()
        options = {"options": self.options} if self.options else {}
        return {
            "dsn": self._text(self.user, self.password, self.parameters),
            "timeout": self.timeout,
            "server_settings": {"application_name": name, **options, **(settings or {})},
        }

    def _text(self, user: str, password: str, parameters: Mapping[str, str]) -> str:
        who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        sockets = [host for host, _ in self.hosts if host.startswith("/")]
        query = dict(parameters)
        if sockets:
            # A socket's folder cannot stand where a host does.
            query |= {"host": ",".join(sockets), "port": ",".join(str(port) for _, port in self.hosts)}
        where = "" if sockets else self.place
        tail = f"?{urlencode(query)}" if query else ""
        return f"postgresql://{f'{who}@' if who else ''}{where}/{quote(self.database, safe='')}{tail}"


def parse(url: str) -> DatabaseAddress:
    """The address in a URL. Raises ValueError with one sentence that names what is not understood."""
    scheme, found, rest = url.partition("://")
    if not found or scheme not in SCHEMES:
        raise ValueError(f"is no PostgreSQL URL; write one such as {EXAMPLE}")
    main, _, query = rest.partition("?")
    netloc, _, database = main.partition("/")
    who, _, where = netloc.rpartition("@")
    user, _, password = who.partition(":")
    given = _parameters(query)
    values = {name: given.pop(name, "") for name in ("host", "port", "user", "password", "dbname")}
    hosts = _hosts(values["host"], values["port"]) if values["host"] else _netloc(where, values["port"])
    timeout, name, options = (
        given.pop("connect_timeout", ""),
        given.pop("application_name", ""),
        given.pop("options", ""),
    )
    return DatabaseAddress(
        hosts,
        values["user"] or unquote(user),
        values["password"] or unquote(password),
        values["dbname"] or unquote(database) or values["user"] or unquote(user),
        _checked(given, several=len(hosts) > 1),
        _seconds(timeout),
        name,
        options,
    )


def _parameters(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in given:
            raise ValueError(f"gives {name} twice; keep one")
        given[name] = value
    return given


def _checked(given: Mapping[str, str], *, several: bool) -> dict[str, str]:
    kept = {}
    for name, value in given.items():
        if name in GIVEN:
            if value.lower() not in GIVEN[name]:
                raise ValueError(
                    f"asks for {name}={value}, which cannot be promised; remove it, or write {GIVEN[name][0]}"
                )
        elif name not in PASSED:
            raise ValueError(f"has the parameter {name}, which is not understood; remove it")
        else:
            kept[name] = value
    if (mode := kept.get("sslmode", "prefer")) not in SSL_MODES:
        raise ValueError(f"has sslmode={mode}, which is none of {', '.join(SSL_MODES)}")
    attrs = kept.get("target_session_attrs", "any")
    if attrs not in WRITABLE:
        raise ValueError(f"has target_session_attrs={attrs}, but the plane writes; use one of {', '.join(WRITABLE)}")
    if several:
        kept.setdefault("target_session_attrs", "read-write")
    return kept


def _seconds(text: str) -> float:
    if not text:
        return DEFAULT_TIMEOUT
    if not text.isdecimal() or not 0 <= int(text) <= 3600:
        raise ValueError(f"has connect_timeout={text}, which is no number of seconds up to 3600")
    # As in libpq: 0 waits for ever, which nothing here does, and less than 2 means 2.
    return float(max(2, int(text))) if int(text) else DEFAULT_TIMEOUT


def _netloc(where: str, port: str) -> tuple[tuple[str, int], ...]:
    if not where:
        return (("localhost", _port(port)),)
    parts = []
    for part in where.split(","):
        host, colon, after = part.rpartition(":")
        if not colon or after.endswith("]"):
            host, after = part, ""
        parts.append((unquote(host.strip("[]")), _port(after or port)))
    return tuple(parts)


def _hosts(hosts: str, ports: str) -> tuple[tuple[str, int], ...]:
    names, numbers = hosts.split(","), ports.split(",") if ports else [""]
    if len(numbers) not in (1, len(names)):
        raise ValueError(f"names {len(names)} hosts and {len(numbers)} ports; give one port, or one for each")
    numbers = numbers if len(numbers) == len(names) else numbers * len(names)
    return tuple((name, _port(number)) for name, number in zip(names, numbers, strict=True))


def _port(text: str) -> int:
    if not text:
        return 5432
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"has the port {text}, which is no number from 1 to 65535")
    return int(text)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")
