"""Beats, from protobuf: parsed once, checked completely, so that nothing behind it has to doubt.

Rule: what a plugin sends is data. Every bound has a name; a beat that breaks one is refused with field, rule and
remedy, and changes nothing. An agent's time orders nothing and is never held against it: it is shown.
"""

from __future__ import annotations

import math
from typing import NoReturn

from libs.common.errors import Invalid
from libs.common.text import clean_line
from libs.common.timestamps import moment
from prunella.v1 import agent_pb2 as pb
from prunella_agent.requirements import well_formed
from services.ingest.beat import AgentCondition, Beat, ClientFigures, Health

MOST_NUMBERS = 32
LONGEST_KEY = 64
LONGEST_VALUE = 256
MOST_INPUTS = 3
LONGEST_INPUT = 2048
LONGEST_NAME = 128
MOST_CONDITIONS = 8
LONGEST_CONDITION = 256
COUNTERS = ("errors", "webhook_attempts", "webhook_failures", "signature_failures")
HEALTHS = {int(health): health for health in Health}


def beat(message: pb.Beat, *, bootless: bool = False) -> Beat:
    """A beat as the hearts know it; `bootless`: it may be one without a boot. Raises Invalid."""
    boot = message.boot_id
    if bootless and not boot:
        _without_boot(message)
    elif not boot or len(boot) > LONGEST_KEY or "," in boot or "\0" in boot:
        _wrong("boot_id", "must be 1 to 64 characters without commas", "send the id made at the agent's start")
    elif message.sequence < 1:
        _wrong("sequence", "must be 1 or more and rise with every beat", "count beats from 1 after each start")
    errors, attempts = message.errors, message.webhook_attempts
    failures, signatures = message.webhook_failures, message.signature_failures
    if errors < 0 or attempts < 0 or failures < 0 or signatures < 0:
        _negative(message)
    if failures > attempts:
        _wrong("webhook_failures", "must not exceed webhook_attempts", "count each failed webhook as an attempt too")
    release, digest, config_digest = message.release, message.digest, message.config_digest
    if len(release) + len(digest) + len(config_digest) > LONGEST_NAME or "\0" in release + digest + config_digest:
        _long_text(message)
    if message.generation < 0:
        _wrong("generation", "must not be negative", "send 0 before the first command")
    health = HEALTHS.get(message.health)
    if health is None:
        _wrong("health", "must be one of the values of Health", "send HEALTH_UNSPECIFIED when unknown")
    made = Beat(
        boot, message.sequence, errors, attempts, failures, signatures, release, message.generation, digest, health
    )
    made.config_digest = config_digest
    if message.HasField("time"):
        made.time = moment(message.time, "time").timestamp()
    _seldom(message, made)
    return made


def environment(message: pb.Beat | pb.EnrollRequest) -> tuple[tuple[str, str], ...]:
    """What an agent reports of where it runs. Raises Invalid."""
    entries = tuple(message.environment.items())
    if len(entries) > MOST_NUMBERS:
        _wrong("environment", f"may have {MOST_NUMBERS} entries", "send only cms, runtime and platform")
    for key, value in entries:
        _key(key, "environment")
        if len(value.encode()) > LONGEST_VALUE or "\0" in value:
            _wrong("environment", f"values may have {LONGEST_VALUE} bytes and no NUL", "shorten the value")
    return entries


def _seldom(message: pb.Beat, made: Beat) -> None:
    # What most beats say nothing of.
    if message.numbers or message.environment or message.failing_inputs:
        _extras(message, made)
    if message.conditions:
        made.conditions = _conditions(message)
    if message.requires or message.HasField("refused"):
        _requirements(message, made)
    if message.HasField("errors_last_24h") or message.HasField("webhook_fail_rate"):
        made.client_figures = _client_figures(message)


def _extras(message: pb.Beat, made: Beat) -> None:
    if message.numbers:
        numbers = tuple(message.numbers.items())
        if len(numbers) > MOST_NUMBERS:
            _wrong("numbers", f"may have {MOST_NUMBERS} entries, not {len(numbers)}", "send fewer named numbers")
        for key, value in numbers:
            _key(key, "numbers")
            if not math.isfinite(value):
                _wrong("numbers", "must be finite, neither NaN nor infinite", "leave out what is not known")
        made.numbers = numbers
    if message.environment:
        made.environment = environment(message)
    if message.failing_inputs:
        if len(message.failing_inputs) > MOST_INPUTS:
            _wrong("failing_inputs", f"may have {MOST_INPUTS} entries", "send the newest ones only")
        if any(len(text.encode()) > LONGEST_INPUT for text in message.failing_inputs):
            _wrong("failing_inputs", f"may have {LONGEST_INPUT} bytes each", "cut long inputs")
        # jsonb cannot hold NUL, and an input is shown and replayed as text.
        made.failing_inputs = tuple(text.replace("\0", "\N{REPLACEMENT CHARACTER}") for text in message.failing_inputs)


def _conditions(message: pb.Beat) -> tuple[AgentCondition, ...]:
    # Cut and cleaned, never refused: an agent in trouble must be heard.
    return tuple(
        AgentCondition(
            clean_line(one.type, LONGEST_KEY) or "local_fault",
            clean_line(one.subject, LONGEST_CONDITION),
            clean_line(one.detail, LONGEST_CONDITION),
        )
        for one in message.conditions[:MOST_CONDITIONS]
    )


def _requirements(message: pb.Beat, made: Beat) -> None:
    for field, requires in (("requires", message.requires), ("refused.requires", message.refused.requires)):
        if not well_formed(dict(requires)):
            _wrong(
                field, "must name clauses such as >=3.11,<4 by short plain names", "send them as the release has them"
            )
    release = message.refused.release
    if len(release) > LONGEST_NAME or "\0" in release or bool(release) != bool(message.refused.requires):
        _wrong("refused", "must name a release and what it requires", "leave it out when nothing was refused")
    made.requires = tuple(message.requires.items())
    made.refused_requires, made.refused_release = tuple(message.refused.requires.items()), release


def _client_figures(message: pb.Beat) -> ClientFigures:
    errors = message.errors_last_24h if message.HasField("errors_last_24h") else None
    rate = message.webhook_fail_rate if message.HasField("webhook_fail_rate") else None
    if errors is not None and errors < 0:
        _wrong("errors_last_24h", "must not be negative", "send the number of errors of the last 24 hours")
    if rate is not None and not 0 <= rate <= 1:
        _wrong("webhook_fail_rate", "must be between 0 and 1", "send failures divided by attempts")
    return ClientFigures(errors, rate)


def _key(key: str, field: str) -> None:
    if not key or len(key.encode()) > LONGEST_KEY or "\0" in key:
        _wrong(field, f"keys must have 1 to {LONGEST_KEY} bytes and no NUL", "use short plain names")


def _without_boot(message: pb.Beat) -> None:
    for field in ("sequence", *COUNTERS):
        if getattr(message, field):
            _wrong(field, "counts from a boot", "send boot_id, or errors_last_24h and webhook_fail_rate in its place")


def _negative(message: pb.Beat) -> NoReturn:
    field = next(name for name in COUNTERS if getattr(message, name) < 0)
    _wrong(field, "must not be negative", "send counts since boot")


def _long_text(message: pb.Beat) -> None:
    for field in ("release", "digest", "config_digest"):
        value = getattr(message, field)
        if len(value) > LONGEST_NAME or "\0" in value:
            _wrong(field, f"may have {LONGEST_NAME} characters and no NUL", "send the version or digest alone")


def _wrong(field: str, rule: str, remedy: str) -> NoReturn:
    raise Invalid(f"{field} {rule}; {remedy}", reason="BEAT_INVALID", field=field)
