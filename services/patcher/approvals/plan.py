"""The plan that people approve, and the one canonical form of it that is hashed and shown.

Rule: the form names its fields itself and carries its version, so that neither a renamed attribute nor a reordered
class ever voids an approval. Another form is another version.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

import rfc8785

PLAN_TYPE: Final = "prunella.plan/v1"


@dataclass(frozen=True)
class Plan:
    """Everything people say yes to; `scope` is sorted (plugins, or one rollout's), digests are hexadecimal."""

    subject: str
    action: str
    package: str
    from_release: str
    to_release: str
    digest: str
    scope: tuple[str, ...]
    policy_version: int
    config_digest: str = ""
    rollout: str = ""


def plan_text(plan: Plan) -> str:
    """The plan as canonical JSON (RFC 8785): what is hashed and shown."""
    form: dict[str, Any] = {
        "type": PLAN_TYPE,
        "subject": plan.subject,
        "action": plan.action,
        "package": plan.package,
        "from_release": plan.from_release,
        "to_release": plan.to_release,
        "digest": plan.digest,
        "scope": sorted(plan.scope),
        "policy_version": plan.policy_version,
        "config_digest": plan.config_digest,
        "rollout": plan.rollout,
    }
    return rfc8785.dumps(form).decode()


def plan_hash(plan: Plan) -> str:
    """SHA-256 of the plan's canonical JSON, hexadecimal; approvals are for exactly this."""
    return hashlib.sha256(plan_text(plan).encode()).hexdigest()


def read_plan(text: str) -> Plan:
    """The plan in its canonical form. Raises ValueError for another form."""
    form = json.loads(text)
    if form["type"] != PLAN_TYPE:
        raise ValueError(f"a plan of type {form['type']!r} cannot be read, only {PLAN_TYPE}")
    return Plan(
        form["subject"],
        form["action"],
        form["package"],
        form["from_release"],
        form["to_release"],
        form["digest"],
        tuple(form["scope"]),
        form["policy_version"],
        form["config_digest"],
        form["rollout"],
    )
