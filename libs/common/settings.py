"""What a process is told by its environment, checked completely before anything starts.

Every variable may be given as `NAME` or, for secrets kept in files, as `NAME_FILE`. All that is wrong is said at once;
each line names the variable, the rule it breaks and what to do.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from libs.common import database_address
from libs.common.errors import Invalid

T = TypeVar("T", bound=BaseModel)

SHORTEST_KEY = 32


class BadSettings(Invalid):
    """The environment is not fit to start with; the message has one line per variable."""


def variable(name: str, *, rule: str, remedy: str = "", default: Any = ..., secret: bool = False, **bounds: Any) -> Any:
    """A setting read from the variable `name`, with its rule and remedy in words; secrets are never shown.

    Without a remedy it is to leave the variable out, for its default.
    """
    remedy = remedy or f"leave it out for {default:g}"
    return Field(default, alias=name, description=rule, json_schema_extra={"remedy": remedy}, repr=not secret, **bounds)


def _host_and_port(text: str) -> str:
    if text:
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            message = "not host:port"
            raise ValueError(message)
    return text


def _hexadecimal(text: str) -> str:
    if len(bytes.fromhex(text)) * 2 < SHORTEST_KEY:
        message = f"fewer than {SHORTEST_KEY} hexadecimal digits"
        raise ValueError(message)
    return text


def _url(*schemes: str) -> AfterValidator:
    def check(text: str) -> str:
        scheme, found, rest = text.partition("://")
        if text and (not found or scheme not in schemes or not rest):
            message = f"does not begin with {' or '.join(f'{allowed}://' for allowed in schemes)}"
            raise ValueError(message)
        return text

    return AfterValidator(check)


def _database_url(text: str) -> str:
    database_address.parse(text)
    return text


Address = Annotated[str, AfterValidator(_host_and_port)]
HttpUrl = Annotated[str, _url("http", "https")]
Key = Annotated[str, AfterValidator(_hexadecimal)]
_ADDRESS: dict[str, Any] = {"rule": "host:port where the service listens", "remedy": "for example 127.0.0.1:7001"}


class ProcessSettings(BaseModel):
    """What every process of the plane is told, a worker too."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    key: Key = variable(
        "PRUNELLA_KEY",
        rule="the shared key of all services, at least 32 hexadecimal digits",
        remedy="make one with: openssl rand -hex 32",
        secret=True,
    )
    otlp: HttpUrl = variable(
        "PRUNELLA_OTLP",
        default="",
        rule="where spans go (OTLP over HTTP); empty keeps them here",
        remedy="for example http://127.0.0.1:9005/v1/traces",
    )
    log: Literal["json", "pretty", "auto"] = variable(
        "PRUNELLA_LOG",
        default="auto",
        rule="json, pretty, or auto (pretty on a terminal)",
        remedy="use one of the three words",
    )


class ServiceSettings(ProcessSettings):
    """What every service is told. A service adds its own variables in a subclass."""

    database_url: Annotated[str, AfterValidator(_database_url)] = variable(
        "DATABASE_URL",
        rule="PostgreSQL URL of the service's role",
        remedy=f"for example {database_address.EXAMPLE}",
        secret=True,
    )
    database_pooler: Literal["none", "transaction"] = variable(
        "PRUNELLA_DATABASE_POOLER",
        default="none",
        rule="transaction when DATABASE_URL leads to a pooler such as PgBouncer with pool_mode=transaction, else none",
        remedy="use one of the two words",
    )
    nats_url: Annotated[str, _url("nats", "tls")] = variable(
        "NATS_URL", rule="URL of the NATS server", remedy="for example nats://127.0.0.1:4222", secret=True
    )
    state: Path = variable(
        "PRUNELLA_STATE", rule="folder for files of the service", remedy="name a folder it may write to"
    )
    listen: Address = variable(
        "PRUNELLA_LISTEN",
        default="127.0.0.1:0",
        rule="host:port to listen on",
        remedy="for example 127.0.0.1:7001; port 0 lets the kernel choose",
    )
    http_listen: Address = variable(
        "PRUNELLA_HTTP_LISTEN",
        default="127.0.0.1:0",
        rule="host:port for HTTP (metrics)",
        remedy="for example 127.0.0.1:9001; port 0 lets the kernel choose",
    )
    ingest_address: Address = variable("PRUNELLA_INGEST_ADDRESS", default="", **_ADDRESS)
    decider_address: Address = variable("PRUNELLA_DECIDER_ADDRESS", default="", **_ADDRESS)
    patcher_address: Address = variable("PRUNELLA_PATCHER_ADDRESS", default="", **_ADDRESS)
    queue_address: Address = variable("PRUNELLA_QUEUE_ADDRESS", default="", **_ADDRESS)
    ops_address: Address = variable("PRUNELLA_OPS_ADDRESS", default="", **_ADDRESS)
    request_retention: float = variable(
        "PRUNELLA_REQUEST_RETENTION_SECONDS",
        default=86400.0,
        rule="seconds a request id is remembered with its answer, 60 to 2592000",
        ge=60,
        le=2_592_000,
    )
    otel_endpoint: HttpUrl = variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        default="",
        rule="a collector ops passes spans on to; empty for none",
        remedy="for example http://127.0.0.1:4318",
    )


def load(cls: type[T], environ: Mapping[str, str] | None = None) -> T:
    """The settings in an environment (the process's own by default); BadSettings lists everything that is wrong."""
    environ = os.environ if environ is None else environ
    values: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for name in (_variable(key, field) for key, field in cls.model_fields.items()):
        try:
            value = _value(environ, name)
        except ValueError as error:
            wrong[name] = str(error)
            continue
        if value is not None:
            values[name] = value
    try:
        settings = cls(**values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            name = str(detail["loc"][0]) if detail["loc"] else "the settings together"
            wrong.setdefault(name, _sentence(cls, name, detail))
    else:
        if not wrong:
            return settings
    lines = "\n".join(f"  {name}: {sentence}" for name, sentence in sorted(wrong.items()))
    problem = BadSettings(f"cannot start, the environment is wrong:\n{lines}", reason="BAD_SETTINGS")
    problem.metadata = wrong
    raise problem


def _variable(key: str, field: FieldInfo) -> str:
    return field.alias or key.upper()


def _value(environ: Mapping[str, str], name: str) -> str | None:
    path = environ.get(f"{name}_FILE")
    if path is None:
        return environ.get(name)
    if name in environ:
        message = f"given twice, as {name} and as {name}_FILE; keep one"
        raise ValueError(message)
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{name}_FILE names a file that cannot be read ({path}: {error}); check path and permissions"
        raise ValueError(message) from error


def _sentence(cls: type[BaseModel], name: str, detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    what = "missing" if detail["type"] == "missing" else message[:1].lower() + message[1:]
    for key, field in cls.model_fields.items():
        if name in {_variable(key, field), key}:
            extra = field.json_schema_extra
            remedy = extra.get("remedy", "") if isinstance(extra, dict) else ""
            return "; ".join(part for part in (what, field.description, str(remedy)) if part)
    return what
