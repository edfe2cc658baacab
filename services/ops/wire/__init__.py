"""Protobuf ⇄ dataclasses of ops. The only room that sees both; it parses or raises Invalid."""

from services.ops.wire.facts import decoded, plain, told
from services.ops.wire.timeline import dead_letter, entry, span, trace_name, wanted

__all__ = ["dead_letter", "decoded", "entry", "plain", "span", "told", "trace_name", "wanted"]
