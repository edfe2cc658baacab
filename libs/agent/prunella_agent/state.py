"""The agent's state as its journal says it, and how it recovers after a death at any moment.

Rule: the journal's entries, folded in order, are the whole state. A switch without a COMMITTED is reverted when the
agent starts again; a revert that had begun is finished; a command that was received and has no receipt is started again
(and asks for a permit again); a receipt the plane has not acknowledged is sent again. Fences only rise, and the first
final receipt of a generation stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

MAX_REMEMBERED = 64

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Install:
    """One release in one slot, run with one configuration under one generation."""

    slot: str
    release: str
    digest: str
    generation: int
    entrypoint: tuple[str, ...]
    probe: tuple[str, ...]
    config: str
    requires: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probation:
    """A switch that is not committed yet."""

    command: str
    attempt: str
    fence: int
    traceparent: str
    before: Install
    after: Install
    switched: bool = False


@dataclass(frozen=True, slots=True)
class Revert:
    """A revert that has begun, with the receipt to send at its end."""

    target: Install
    generation: int
    result: str


@dataclass(frozen=True, slots=True)
class State:
    """Everything the agent knows about itself. Results and commands are serialised and opaque here."""

    running: Install | None = None
    previous: Install | None = None
    probation: Probation | None = None
    revert: Revert | None = None
    fence: int = 0
    received: dict[str, str] = field(default_factory=dict)
    receipts: dict[str, str] = field(default_factory=dict)
    unacknowledged: dict[str, str] = field(default_factory=dict)
    finals: dict[int, str] = field(default_factory=dict)
    # Release and requirements of what this host could not run, until another release is applied.
    refused: dict[str, Any] = field(default_factory=dict)

    @property
    def active(self) -> Install | None:
        """What runs, or is about to run, right now."""
        return self.probation.after if self.probation else self.running

    def snapshot(self) -> dict[str, Any]:
        """The state as one entry that can stand in for all before it."""
        return {"step": "SNAPSHOT", "state": asdict(self)}


@dataclass(frozen=True, slots=True)
class Recovery:
    """What to do after a start: send receipts again, then finish a revert, revert or run, then restart commands."""

    resend_receipts: tuple[str, ...]
    finish_revert: Revert | None
    revert_probation: Probation | None
    run: Install | None
    restart_commands: tuple[str, ...]


def fold(entries: Iterable[Entry]) -> State:
    """The state after these entries."""
    state = State()
    for entry in entries:
        state = after(state, entry)
    return state


def recover(state: State) -> Recovery:
    """What an agent that died in this state does when it starts again."""
    revert_probation = state.probation if state.revert is None else None
    settled = state.revert is None and state.probation is None
    # The command of an open probation has its receipt, or gets it from the revert.
    probation_command = state.probation.command if state.probation else ""
    return Recovery(
        resend_receipts=tuple(state.unacknowledged.values()),
        finish_revert=state.revert,
        revert_probation=revert_probation,
        run=state.running if settled else None,
        restart_commands=tuple(command for name, command in state.received.items() if name != probation_command),
    )


def after(state: State, entry: Entry) -> State:
    """The state after one more entry; an entry of a step unknown here changes nothing."""
    step = STEPS.get(entry["step"])
    state = step(state, entry) if step else state
    return result_recorded(state, entry) if "result" in entry and entry["step"] != "REVERTING" else state


def result_recorded(state: State, entry: Entry) -> State:
    """A receipt: stored for repeats of its command, and sent again until the plane acknowledges it."""
    command, outcome, result = entry["command"], entry["outcome"], entry["result"]
    received = {name: message for name, message in state.received.items() if name != command}
    receipts = most_recent({**{k: v for k, v in state.receipts.items() if k != command}, command: result})
    unacknowledged = most_recent({**state.unacknowledged, f"{command}/{outcome}": result})
    return replace(state, received=received, receipts=receipts, unacknowledged=unacknowledged)


def refused(state: State, entry: Entry) -> State:
    """A receipt that changed nothing; one for lack of a requirement is remembered."""
    if "requires" not in entry:
        return state
    return replace(state, refused={"release": entry["release"], "requires": dict(entry["requires"])})


def installed(state: State, entry: Entry) -> State:
    """A release put in place by hand, at the first start or by a person."""
    state = replace(state, refused={})
    install = read_install(entry["install"])
    previous = state.running if state.running and state.running.slot != install.slot else None
    return replace(state, running=install, previous=previous)


def slot_cleared(state: State, entry: Entry) -> State:
    """A slot is about to be filled by hand: what was in it is no way back any more."""
    lost = state.previous is not None and state.previous.slot == entry["slot"]
    return replace(state, previous=None) if lost else state


def received(state: State, entry: Entry) -> State:
    """A command was accepted."""
    commands = most_recent({**state.received, entry["command"]: entry["message"]})
    return replace(state, received=commands, fence=max(state.fence, entry["fence"]))


def switching(state: State, entry: Entry) -> State:
    """A permit was given; from here on there is a way back to take, and the spare slot's old files are none."""
    probation = read_probation(entry["probation"])
    lost = state.previous is not None and state.previous.slot == probation.after.slot != probation.before.slot
    return replace(state, probation=probation, previous=None if lost else state.previous, refused={})


def switched(state: State, _: Entry) -> State:
    """The new generation runs."""
    return replace(state, probation=replace(state.probation, switched=True)) if state.probation else state


def committed(state: State, entry: Entry) -> State:
    """The new generation stays."""
    if state.probation is None or state.probation.after.generation != entry["generation"]:
        return state
    finals = final(state, entry["generation"], "COMMITTED")
    return replace(state, running=state.probation.after, previous=state.probation.before, probation=None, finals=finals)


def reverting(state: State, entry: Entry) -> State:
    """The way back has begun."""
    revert = Revert(read_install(entry["target"]), entry["generation"], entry["result"])
    return replace(state, revert=revert)


def reverted(state: State, entry: Entry) -> State:
    """The old generation runs again, or the new one never did."""
    finals = final(state, entry["generation"], "REVERTED")
    if state.revert is None:
        return replace(state, finals=finals)
    return replace(state, running=state.revert.target, previous=None, probation=None, revert=None, finals=finals)


def acknowledged(state: State, entry: Entry) -> State:
    """The plane has stored a receipt."""
    unacknowledged = {k: v for k, v in state.unacknowledged.items() if k != f"{entry['command']}/{entry['outcome']}"}
    return replace(state, unacknowledged=unacknowledged)


def restored(_: State, entry: Entry) -> State:
    """A snapshot in place of the entries before it."""
    fields = dict(entry["state"])
    for name in ("running", "previous"):
        fields[name] = read_install(fields[name]) if fields[name] else None
    fields["probation"] = read_probation(fields["probation"]) if fields["probation"] else None
    if fields["revert"]:
        fields["revert"] = Revert(**{**fields["revert"], "target": read_install(fields["revert"]["target"])})
    fields["finals"] = {int(generation): outcome for generation, outcome in fields["finals"].items()}
    return State(**fields)


STEPS = {
    "INSTALLED": installed,
    "SLOT_CLEARED": slot_cleared,
    "RECEIVED": received,
    "RECEIPT": refused,
    "SWITCHING": switching,
    "SWITCHED": switched,
    "COMMITTED": committed,
    "REVERTING": reverting,
    "REVERTED": reverted,
    "ACKNOWLEDGED": acknowledged,
    "SNAPSHOT": restored,
}


def final(state: State, generation: int, outcome: str) -> dict[int, str]:
    """The final outcomes with one more. A rollback may follow a commit; nothing follows a revert."""
    if state.finals.get(generation) == "REVERTED":
        return state.finals
    return most_recent({**state.finals, generation: outcome})


def most_recent(entries: dict[Any, str]) -> dict[Any, str]:
    """The 64 most recent entries."""
    return dict(list(entries.items())[-MAX_REMEMBERED:])


def read_install(fields: Mapping[str, Any]) -> Install:
    """An install as it was written down."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Install(**plain)


def read_probation(fields: Mapping[str, Any]) -> Probation:
    """A probation as it was written down."""
    plain = {**fields, "before": read_install(fields["before"]), "after": read_install(fields["after"])}
    return Probation(**plain)
