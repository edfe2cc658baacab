"""The log beside what it was made from: does an entry still say what was logged, and its fact what the entry says?

Rule: what is wrong is said in words that name the entry; the hash of a leaf is always made again from the entry, never
believed. What an entry says of before and after was read from the payload, which is compared as a whole, so a newer
build that reads more from it contradicts nobody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from services.ops.audit import entry as entries
from services.ops.audit import merkle
from services.ops.audit.entry import Fact

READ = frozenset({"before", "after"})


def mismatch(index: int, event: str, leaf: bytes, entry: bytes, fact: Fact | None) -> str:
    """What is wrong with an entry beside its fact, None where the fact is gone; empty when nothing is."""
    if merkle.leaf_hash(entry) != leaf:
        return f"entry {index} was edited: it does not have the hash of its leaf"
    logged = fields_of(entry)
    if logged is None:
        return f"entry {index} is no entry of a log"
    if logged.get("id") != event:
        return f"entry {index} tells of the fact {logged.get('id', '')[:60]} and is filed under {event}"
    if fact is None:
        return f"the fact {event}, which entry {index} tells of, was deleted"
    before = {name: value for name, value in logged.items() if name not in READ}
    now = {name: value for name, value in entries.fields(fact).items() if name not in READ}
    different = entries.difference(before, now)
    return f"the fact {event} of entry {index} was edited: {different}" if different else ""


def contradiction(logged: Mapping[str, str], fact: Fact) -> str:
    """What an entry says otherwise than the event in its payload; empty when they agree."""
    now = entries.fields(fact)
    if not logged.get("before") and not logged.get("after"):
        # Logged by a build that did not know how to read it.
        now |= {"before": logged.get("before", ""), "after": logged.get("after", "")}
    different = entries.difference(logged, now | {"trace": logged.get("trace", "")})
    return different.replace(" when it was logged and is ", " in the entry and is ").replace(" now", " in its payload")


def fields_of(entry: bytes) -> Mapping[str, str] | None:
    """The fields of an entry; None when it is none."""
    try:
        logged = json.loads(entry)
    except ValueError:
        return None
    if not isinstance(logged, dict) or not all(isinstance(value, str) for value in logged.values()):
        return None
    return logged
