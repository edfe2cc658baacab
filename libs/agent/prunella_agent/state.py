"""What the agent has written down, and what follows from it after a death at any moment.

Rule: the journal's entries, folded in order, are the whole state. A switch that has no COMMITTED behind it is taken
back when the agent starts again; a revert that had begun is finished; a command that was received and has no word is
begun anew (it will have to ask for a permit again); a word the plane has not acknowledged is said again. Fences only
rise, and the first final word on a generation stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

KEPT = 64

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


@dataclass(frozen=True, slots=True)
class Trial:
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
    """A way back that has begun, with the word to say at its end."""

    target: Install
    generation: int
    result: str


@dataclass(frozen=True, slots=True)
class State:
    """Everything the agent knows about itself. Results and commands are serialised and opaque here."""

    running: Install | None = None
    previous: Install | None = None
    trial: Trial | None = None
    revert: Revert | None = None
    fence: int = 0
    received: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    unacknowledged: dict[str, str] = field(default_factory=dict)
    finals: dict[int, str] = field(default_factory=dict)

    @property
    def present(self) -> Install | None:
        """What runs, or is about to run, right now."""
        return self.trial.after if self.trial else self.running

    def snapshot(self) -> dict[str, Any]:
        """The state as one entry that can stand in for all before it."""
        return {"step": "SNAPSHOT", "state": asdict(self)}


@dataclass(frozen=True, slots=True)
class Recovery:
    """What to do after a start: say what is owed, then one of finish, take back and run, then begin anew."""

    say_again: tuple[str, ...]
    finish: Revert | None
    take_back: Trial | None
    run: Install | None
    begin_anew: tuple[str, ...]


def fold(entries: Iterable[Entry]) -> State:
    """The state after these entries."""
    state = State()
    for entry in entries:
        state = after(state, entry)
    return state


def recover(state: State) -> Recovery:
    """What an agent that died in this state does when it starts again."""
    take_back = state.trial if state.revert is None else None
    settled = state.revert is None and state.trial is None
    # The command of an open trial has spoken, or will by being taken back.
    trying = state.trial.command if state.trial else ""
    return Recovery(
        say_again=tuple(state.unacknowledged.values()),
        finish=state.revert,
        take_back=take_back,
        run=state.running if settled else None,
        begin_anew=tuple(command for name, command in state.received.items() if name != trying),
    )


def after(state: State, entry: Entry) -> State:
    """The state after one more entry; an entry of a step unknown here changes nothing."""
    step = STEPS.get(entry["step"])
    state = step(state, entry) if step else state
    return spoken(state, entry) if "result" in entry and entry["step"] != "REVERTING" else state


def spoken(state: State, entry: Entry) -> State:
    """A word on a command: kept to be repeated, and owed to the plane until it is acknowledged."""
    command, outcome, result = entry["command"], entry["outcome"], entry["result"]
    received = {name: kept for name, kept in state.received.items() if name != command}
    words = latest({**{k: v for k, v in state.words.items() if k != command}, command: result})
    owed = latest({**state.unacknowledged, f"{command}/{outcome}": result})
    return replace(state, received=received, words=words, unacknowledged=owed)


def installed(state: State, entry: Entry) -> State:
    """A release put in place by hand, at the first start or by a person."""
    install = read_install(entry["install"])
    keep = state.running if state.running and state.running.slot != install.slot else None
    return replace(state, running=install, previous=keep)


def emptied(state: State, entry: Entry) -> State:
    """A slot is about to be filled by hand: what was in it is no way back any more."""
    lost = state.previous is not None and state.previous.slot == entry["slot"]
    return replace(state, previous=None) if lost else state


def received(state: State, entry: Entry) -> State:
    """A command taken over."""
    commands = latest({**state.received, entry["command"]: entry["message"]})
    return replace(state, received=commands, fence=max(state.fence, entry["fence"]))


def switching(state: State, entry: Entry) -> State:
    """A permit was given; from here on there is a way back to take, and the spare slot's old files are none."""
    trial = read_trial(entry["trial"])
    lost = state.previous is not None and state.previous.slot == trial.after.slot != trial.before.slot
    return replace(state, trial=trial, previous=None if lost else state.previous)


def switched(state: State, _: Entry) -> State:
    """The new generation runs."""
    return replace(state, trial=replace(state.trial, switched=True)) if state.trial else state


def committed(state: State, entry: Entry) -> State:
    """The new generation stays."""
    if state.trial is None or state.trial.after.generation != entry["generation"]:
        return state
    finals = final(state, entry["generation"], "COMMITTED")
    return replace(state, running=state.trial.after, previous=state.trial.before, trial=None, finals=finals)


def reverting(state: State, entry: Entry) -> State:
    """The way back has begun."""
    revert = Revert(read_install(entry["target"]), entry["generation"], entry["result"])
    return replace(state, revert=revert)


def reverted(state: State, entry: Entry) -> State:
    """The old generation runs again, or the new one never did."""
    finals = final(state, entry["generation"], "REVERTED")
    if state.revert is None:
        return replace(state, finals=finals)
    return replace(state, running=state.revert.target, previous=None, trial=None, revert=None, finals=finals)


def acknowledged(state: State, entry: Entry) -> State:
    """The plane has a word for good."""
    owed = {k: v for k, v in state.unacknowledged.items() if k != f"{entry['command']}/{entry['outcome']}"}
    return replace(state, unacknowledged=owed)


def restored(_: State, entry: Entry) -> State:
    """A snapshot in place of the entries before it."""
    kept = dict(entry["state"])
    for name in ("running", "previous"):
        kept[name] = read_install(kept[name]) if kept[name] else None
    kept["trial"] = read_trial(kept["trial"]) if kept["trial"] else None
    if kept["revert"]:
        kept["revert"] = Revert(**{**kept["revert"], "target": read_install(kept["revert"]["target"])})
    kept["finals"] = {int(generation): word for generation, word in kept["finals"].items()}
    return State(**kept)


STEPS = {
    "INSTALLED": installed,
    "EMPTIED": emptied,
    "RECEIVED": received,
    "SWITCHING": switching,
    "SWITCHED": switched,
    "COMMITTED": committed,
    "REVERTING": reverting,
    "REVERTED": reverted,
    "ACKNOWLEDGED": acknowledged,
    "SNAPSHOT": restored,
}


def final(state: State, generation: int, word: str) -> dict[int, str]:
    """The final words with one more. A rollback may follow a commit; nothing follows a revert."""
    if state.finals.get(generation) == "REVERTED":
        return state.finals
    return latest({**state.finals, generation: word})


def latest(kept: dict[Any, str]) -> dict[Any, str]:
    """The last 64 of what is kept."""
    return dict(list(kept.items())[-KEPT:])


def read_install(fields: Mapping[str, Any]) -> Install:
    """An install as it was written down."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Install(**plain)


def read_trial(fields: Mapping[str, Any]) -> Trial:
    """A trial as it was written down."""
    plain = {**fields, "before": read_install(fields["before"]), "after": read_install(fields["after"])}
    return Trial(**plain)
