"""Slack-compatible incoming webhooks: a text and blocks, posted to an address that is itself the secret.

Rule: `&`, `<` and `>` are escaped as Slack asks, so a quotation from a plugin can neither link nor call anybody; the
title goes into `text`, which is what notifications of the app show.
"""

from __future__ import annotations

import json
from typing import Any

from services.ops.notify.message import Message, breakdown

# Slack's own limits: 3,000 characters in a section, 150 in a header.
SECTION, HEADER = 2900, 150
ICONS = {"low": "⚪", "medium": "🟡", "high": "🟠", "critical": "🔴"}


def body(message: Message) -> bytes:
    """The message as Slack takes it."""
    icon = ICONS[message.severity.name.lower()]
    lines = []
    for line in message.lines:
        lines.append(f"{ICONS[line.severity.name.lower()]} {line.time:%H:%M:%S} {escaped(line.headline)}")
        lines += [f"→ `{escaped(line.command)}`"] if line.command else []
    if message.hidden:
        lines.append(f"… and {message.hidden} more: {escaped(breakdown(message.kinds))}")
    blocks = [_block("header", "plain_text", f"{icon} {message.title}"[:HEADER])]
    blocks += [_block("section", "mrkdwn", text) for text in _sections(lines)]
    foot = f"id {message.id}"
    if message.asks:
        foot += f" · seen it? `prunella notifications ack {message.notification}`"
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": foot}]})
    payload = {"text": f"{icon} {escaped(message.title)}", "blocks": blocks}
    return json.dumps(payload, ensure_ascii=False).encode()


def escaped(text: str) -> str:
    """Text that is not read as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _sections(lines: list[str]) -> list[str]:
    sections: list[str] = [""]
    for line in lines:
        if len(sections[-1]) + len(line) >= SECTION:
            sections.append("")
        sections[-1] += ("\n" if sections[-1] else "") + line[:SECTION]
    return sections


def _block(kind: str, form: str, text: str) -> dict[str, Any]:
    return {"type": kind, "text": {"type": form, "text": text}}
