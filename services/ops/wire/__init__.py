"""Protobuf ⇄ dataclasses of ops. The only room that sees both; it parses or raises Invalid."""

from services.ops.wire.audit import asked, audit_checkpoint, audit_entry, audited, contradiction
from services.ops.wire.facts import decoded, plain, told
from services.ops.wire.people import assigned, commented, notes
from services.ops.wire.timeline import dead_letter, entry, span, trace_name, wanted

__all__ = [
    "asked",
    "assigned",
    "audit_checkpoint",
    "audit_entry",
    "audited",
    "commented",
    "contradiction",
    "dead_letter",
    "decoded",
    "entry",
    "notes",
    "plain",
    "span",
    "told",
    "trace_name",
    "wanted",
]  # fmt: skip
