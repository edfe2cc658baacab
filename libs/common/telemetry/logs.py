"""Logs: one JSON object per line, with service and trace id, whoever wrote the line; pretty on a terminal.

Nothing secret and nothing long gets through: values of names that mean a secret are replaced, texts are cut.
"""

import logging
import sys
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO

import structlog
from structlog.typing import Processor, WrappedLogger

from libs.common.telemetry.context import current_trace_id
from libs.common.text import clean_text

LONGEST_TEXT = 4096
SECRET_WORDS = ("secret", "password", "token", "authorization", "credential", "private_key", "database_url")

_service: ContextVar[str] = ContextVar("service", default="")


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is now, not to what it was when logging was configured."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """It cannot be set; the base class tries to."""


def name_service(service: str) -> Callable[[], None]:
    """Lines of this task carry the service's name from now on; gives a function that undoes it."""
    token = _service.set(service)
    return lambda: _service.reset(token)


def configure_logging(style: str = "auto", level: int = logging.INFO) -> None:
    """Route every log of the process, ours and the libraries', to standard error in one shape; json, pretty or auto."""
    pretty = style == "pretty" or (style == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _add_context,
        _guard_values,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if pretty
        else [structlog.processors.format_exc_info, _guard_values, structlog.processors.JSONRenderer(default=str)]
    )
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    # Whoever else listens (a test, a host program) goes on listening.
    root.handlers[:] = [*(other for other in root.handlers if not isinstance(other, _StandardError)), handler]
    root.setLevel(level)
    for talkative in ("httpx", "httpx2", "httpcore", "uvicorn.access", "alembic.runtime.plugins"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def _add_context(_: WrappedLogger, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    service = _service.get()
    if service:
        line.setdefault("service", service)
    trace = current_trace_id()
    if trace:
        line.setdefault("trace_id", trace)
    return line


def _guard_values(_: WrappedLogger, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in line.items():
        if any(word in name.lower() for word in SECRET_WORDS):
            line[name] = "***"
        elif isinstance(value, str):
            line[name] = clean_text(value, LONGEST_TEXT) + "…" * (len(value) > LONGEST_TEXT)
    return line
