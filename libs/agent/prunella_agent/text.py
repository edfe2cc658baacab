r"""Text from outside, made storable and showable by one function.

Rule: whatever a release, a tool or a stranger wrote passes `clean_text` once, where it enters. What PostgreSQL cannot
hold (NUL), what no encoding knows (lone surrogates) and what a terminal would obey (the other C0 and C1 controls, ESC
among them) becomes U+FFFD; complete colour and cursor sequences of terminals go without a trace. Newlines and tabs
stay, CR LF and CR become newlines. Cleaning a text again changes nothing, and time is linear. Standard library only.
"""

import re
from typing import Any

_SEQUENCE = re.compile(r"\x1b\[[0-?]{0,32}[ -/]{0,4}[@-~]")
_RETURN = re.compile(r"\r\n?")
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_text(text: str, longest: int | None = None) -> str:
    """The text without what cannot be stored or shown; at most `longest` characters of it."""
    if longest is not None:
        text = text[:longest]
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", _RETURN.sub("\n", _SEQUENCE.sub("", text)))


def clean_line(text: str, longest: int) -> str:
    """The same as one line: white space of any kind is one space, and none is at the ends."""
    return " ".join(clean_text(text, longest).split())


def clean_values(value: Any) -> Any:
    """A value as JSON knows it, each text and key in it cleaned; as deep as the caller's parser went."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list | tuple):
        return [clean_values(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(str(key)): clean_values(item) for key, item in value.items()}
    return value
