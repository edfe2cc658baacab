"""Texts in requests of people and programs, cleaned where every one of them enters.

Rule: whatever a method does with a text (a reason, a note, a name that is looked up), nothing in it is a control
character but newline and tab. What counts exactly as it was sent is left alone: the reports and results of agents and
workers, which their own wires clean or check, and what is signed.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import Message

from libs.common.text import clean_text

AS_SENT: Final = frozenset({"ReportErrors", "CompleteTask", "CompleteTasks", "PublishRelease", "PublishConfiguration"})
OF_AGENTS: Final = "AgentGateway"


def cleaned(method: str, request: Any) -> Any:
    """The request of a method, such as `/prunella.v1.QueueService/GetTask`, its texts cleaned in place."""
    service, _, name = method.rpartition("/")
    if isinstance(request, Message) and name not in AS_SENT and not service.endswith(OF_AGENTS):
        _clean(request)
    return request


def _clean(message: Message) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _clean_map(value, texts=field.message_type.fields_by_name["value"].type == field.TYPE_STRING)
        elif field.type == field.TYPE_STRING and isinstance(value, str):
            if (text := clean_text(value)) != value:
                setattr(message, field.name, text)
        elif field.type == field.TYPE_STRING:
            if (texts := [clean_text(one) for one in value]) != list(value):
                value[:] = texts
        elif isinstance(value, Message):
            _clean(value)
        elif field.message_type is not None:
            for one in value:
                _clean(one)


def _clean_map(entries: Any, *, texts: bool) -> None:
    for key in list(entries):
        value = entries[key]
        if isinstance(value, Message):
            _clean(value)
            continue
        clean_key = clean_text(key) if isinstance(key, str) else key
        clean_value = clean_text(value) if texts else value
        if (clean_key, clean_value) != (key, value):
            del entries[key]
            entries[clean_key] = clean_value
