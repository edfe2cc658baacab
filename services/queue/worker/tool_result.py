"""What came of one call of a tool, bounded, whoever answered.

Rule: what a tool says is data. A failure has one word in UPPER_SNAKE for programs and a sentence for people; the text
that is kept has an end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mcp_types import CallToolResult, TextContent

LONGEST_TEXT = 256 * 1024
LONGEST_EXPLANATION = 500


class TaskFailed(Exception):  # noqa: N818 - a word of the task's life
    """A try that did not succeed. `permanent`: another try cannot help."""

    def __init__(self, reason: str, explanation: str, *, permanent: bool = False) -> None:
        super().__init__(f"{reason}: {explanation}")
        self.reason = reason
        self.explanation = explanation[:LONGEST_EXPLANATION]
        self.permanent = permanent


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool's answer: its text, cut, and what it says as a structure."""

    text: str
    structure: Any
    is_error: bool
    seconds: float


def parse_result(result: CallToolResult, seconds: float) -> ToolResult:
    """An answer in our words. Without a structure of its own, a text that is a JSON object or list is one."""
    text = "\n".join(_text_of(part) for part in result.content)[:LONGEST_TEXT]
    structure = result.structured_content
    if structure is None:
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            parsed = None
        structure = parsed if isinstance(parsed, dict | list) else {"text": text}
    return ToolResult(text, structure, bool(result.is_error), seconds)


def _text_of(part: Any) -> str:
    return part.text[:LONGEST_TEXT] if isinstance(part, TextContent) else f"[{getattr(part, 'type', 'content')}]"
