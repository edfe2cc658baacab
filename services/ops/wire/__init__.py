"""Protobuf ⇄ dataclasses of ops. The only room that sees both; it parses or raises Invalid."""

from services.ops.wire.audit import audit_checkpoint, audit_entry, audit_filter, contradiction, with_changes
from services.ops.wire.facts import decoded_fact, parsed, plain
from services.ops.wire.timeline import dead_letter, entry, span, trace_name

__all__ = [
    "audit_checkpoint",
    "audit_entry",
    "audit_filter",
    "contradiction",
    "dead_letter",
    "decoded_fact",
    "entry",
    "parsed",
    "plain",
    "span",
    "trace_name",
    "with_changes",
]
