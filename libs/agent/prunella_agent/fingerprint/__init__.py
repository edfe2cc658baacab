"""The fingerprint of an error: what its occurrences share, so that a thousand of them are one report.

Rule: package, type, message and the five innermost frames, each without what changes from one occurrence to the next
(`placeholders`); of frames (`frames`) function and file count, and no line. The parts are words, so that "why are
these two one?" is answered by what was hashed. Time is linear: 2,048 characters of the message and 64 Ki characters of
the stack are read (half from each end, because some languages print the innermost frame last and others first), and no
expression looks further than a bounded distance. Text that is no text (NUL, lone surrogates) is tolerated. Standard
library only; agent, ingest and queue use this one implementation.
"""

import hashlib
from dataclasses import dataclass

from prunella_agent.fingerprint.frames import FRAMES, frames
from prunella_agent.fingerprint.placeholders import normal
from prunella_agent.text import clean_line

__all__ = ["FRAMES", "VERSION", "Fingerprint", "fingerprint", "frames"]

VERSION = "prunella-fingerprint-2"
MESSAGE_CHARACTERS = 2048
NAME_CHARACTERS = 200


@dataclass(frozen=True)
class Fingerprint:
    """`digest` is SHA-256 in hex over `parts`; the parts say in words what the occurrences share."""

    digest: str
    parts: tuple[str, ...]


def fingerprint(package: str, type: str, message: str, stack: str) -> Fingerprint:  # noqa: A002 - the word of the wire
    """What an error of `package` shares with its repeats. Never raises, whatever the texts hold."""
    parts = [f"package {clean_line(package, NAME_CHARACTERS) or '-'}"]
    parts.append(f"type {normal(clean_line(type, NAME_CHARACTERS)) or '-'}")
    parts.append(f"message {normal(clean_line(message, MESSAGE_CHARACTERS)) or '-'}")
    parts += [f"frame {function} in {file}" for function, file in frames(stack)]
    hashed = "\n".join((VERSION, *parts))
    return Fingerprint(hashlib.sha256(hashed.encode()).hexdigest(), tuple(parts))
