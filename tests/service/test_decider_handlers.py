"""What the decider answers, and what it says to bad input."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.testing import BackingServices, until
from libs.common.errors import Invalid, NotFound, Problem
from libs.common.names import new_id
from libs.common.settings import load
from prunella.v1 import decider_pb2, events_pb2
from services.decider.context import Settings
from services.decider.service import build
from tests.service.decider_alone import DeciderAlone


@pytest.fixture
async def alone(backing: BackingServices) -> AsyncIterator[DeciderAlone]:
    decider = DeciderAlone(backing)
    try:
        yield await decider.start()
    finally:
        await decider.stop()


def preview(**changes: object) -> decider_pb2.PreviewDecisionRequest:
    fields: dict[str, object] = {
        "type": "webhook_fail_rate",
        "severity": events_pb2.SEVERITY_MEDIUM,
        "package": "checkout",
        "release": "1.2.0",
        "evidence": events_pb2.Evidence(figures={"webhook_fail_rate": 0.6}),
    }
    return decider_pb2.PreviewDecisionRequest(**(fields | changes))  # type: ignore[arg-type]


async def test_a_preview_says_what_would_be_decided_and_stores_nothing(alone: DeciderAlone) -> None:
    decision = (await alone.stub.PreviewDecision(preview())).decision
    assert (decision.action, decision.release, decision.confidence) == (events_pb2.ACTION_PATCH, "1.2.3", 0.87)
    tried = [events_pb2.TriedRemedy(action=events_pb2.ACTION_PATCH, release="1.2.3", outcome="rolled_back")]
    other = (await alone.stub.PreviewDecision(preview(tried=tried))).decision
    assert other.action == events_pb2.ACTION_CONFIG_FIX
    assert other.candidates[0].excluded == "tried in this incident: rolled_back"
    assert not await alone.plane.sql("SELECT 1 FROM decider.decisions")
    assert not await alone.plane.facts()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (preview(type=""), "type"),
        (preview(package=""), "package"),
        (preview(release="x" * 300), "release"),
        (preview(evidence=events_pb2.Evidence(figures={"rate": float("nan")})), "evidence"),
        (preview(tried=[events_pb2.TriedRemedy()] * 101), "tried"),
    ],
)
async def test_a_preview_of_nonsense_names_the_field(
    alone: DeciderAlone, request_: decider_pb2.PreviewDecisionRequest, field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        await alone.stub.PreviewDecision(request_)
    assert caught.value.field == field


async def test_decisions_come_in_pages_newest_first(alone: DeciderAlone) -> None:
    incidents = [(await alone.open_incident(plugin=f"p{number % 2}"))[0] for number in range(5)]
    await alone.plane.wait_for_fact("decision_made", times=5)
    seen: list[str] = []
    names: list[str] = []
    token = ""
    for _ in range(3):
        page = await alone.stub.ListDecisions(decider_pb2.ListDecisionsRequest(page_size=2, page_token=token))
        seen += [decision.incident for decision in page.decisions]
        names += [decision.name for decision in page.decisions]
        token = page.next_page_token
    assert not token
    assert sorted(seen) == sorted(incidents)
    assert names == sorted(names, reverse=True)
    of_one = await alone.stub.ListDecisions(decider_pb2.ListDecisionsRequest(plugin="plugins/p1"))
    assert {decision.plugin for decision in of_one.decisions} == {"p1"}
    one = await alone.stub.ListDecisions(decider_pb2.ListDecisionsRequest(incident=incidents[3]))
    assert [decision.incident for decision in one.decisions] == [incidents[3]]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (decider_pb2.ListDecisionsRequest(page_size=-1), "BAD_PAGE_SIZE"),
        (decider_pb2.ListDecisionsRequest(page_token="!!"), ""),
    ],
)
async def test_bad_paging_is_refused(
    alone: DeciderAlone, request_: decider_pb2.ListDecisionsRequest, reason: str
) -> None:
    with pytest.raises(Invalid) as caught:
        await alone.stub.ListDecisions(request_)
    assert reason in caught.value.reason


async def test_an_unknown_decision_is_not_found_and_a_bad_name_is_refused(alone: DeciderAlone) -> None:
    for name, problem in ((f"decisions/{new_id()}", NotFound), ("decisions/7", NotFound), ("attempts/7", Invalid)):
        with pytest.raises(problem):
            await alone.stub.GetDecision(decider_pb2.GetDecisionRequest(name=name))


async def test_an_explanation_is_the_reasoning_with_everything_that_was_left_out(alone: DeciderAlone) -> None:
    await alone.open_incident()
    made = (await alone.plane.wait_for_fact("decision_made")).decision_made
    told = await alone.stub.ExplainDecision(decider_pb2.ExplainDecisionRequest(name=f"decisions/{made.decision}"))
    assert told.reasoning[0] == (
        "Round 1: checkout 1.2.0 shows webhook_fail_rate, severity medium: "
        "webhook_fail_rate 0.60 > 0.30 over 25 attempts."
    )
    assert any(line.startswith("Fallback: config_fix – confidence 0.60") for line in told.reasoning)
    assert any(line.startswith("Chosen: patch to 1.2.3, confidence 0.87, because") for line in told.reasoning)
    assert told.reasoning[-1] == f"Decided by choice 2, playbook {alone.ctx.playbook.version}, policy 7."


async def test_the_playbook_in_force_is_told_as_it_is_written(alone: DeciderAlone) -> None:
    told = await alone.stub.GetPlaybook(decider_pb2.GetPlaybookRequest())
    assert (told.version, told.text) == (alone.ctx.playbook.version, alone.ctx.playbook.text)
    assert 'release = "1.2.3"' in told.text


async def test_learning_wants_every_field_of_its_key(alone: DeciderAlone) -> None:
    with pytest.raises(Invalid) as caught:
        await alone.stub.GetLearning(decider_pb2.GetLearningRequest(package="checkout", type="error_spike"))
    assert caught.value.field == "from_release"


async def test_a_playbook_with_a_wrong_field_or_none_at_all_stops_the_start(
    alone: DeciderAlone, tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    environ = alone.plane.settings("decider") | {"DECIDER_PLAYBOOK": str(own)}
    with pytest.raises(Problem, match=r"own\.toml cannot be read"):
        build(load(Settings, environ), alone.clock)
    own.write_text('[[remedy]]\npackge = "shop"\n')
    with pytest.raises(Invalid, match=r"number 1, field `packge` is not known; did you mean `package`\?"):
        build(load(Settings, environ), alone.clock)


async def test_the_process_says_what_is_wrong_and_ends(alone: DeciderAlone, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("[[remedy]]\nsymptom = 3\n")
    environ = alone.plane.settings("decider") | {"DECIDER_PLAYBOOK": str(own), "PRUNELLA_LISTEN": "127.0.0.1:0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "services.decider"],
        env=environ | {"PATH": os.environ["PATH"], "PYTHONPATH": ".:protos/gen:libs/agent"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        await until(lambda: process.poll() is not None, 30, what="the process ended by itself")
    finally:
        process.kill()
    said = "".join(process.communicate())
    assert process.returncode != 0
    assert "field `symptom` must be one of" in said
    assert "Traceback" not in said
