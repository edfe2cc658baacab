"""What a channel can answer: it took the message, it refuses it for good, or it could not for now.

Rule: whatever a channel says in its own words is cut, made printable and freed of its own secrets before it is kept.
"""

from __future__ import annotations

LONGEST = 300


class NotTaken(Exception):  # noqa: N818 - a word of the design
    """The channel did not take the message; `refused` means that trying again is idle."""

    def __init__(self, said: str, *, refused: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(said)
        self.said = said
        self.refused = refused
        self.retry_after = retry_after


def printable(text: str, secret: str = "") -> str:
    """One line of somebody else's text, without the secret it may repeat."""
    clean = text.replace(secret, "(hidden)") if secret else text
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in clean).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
