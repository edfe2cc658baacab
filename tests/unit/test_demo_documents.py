"""What the demo says: the outcome of a story, one line for a fact, and a playbook that the decider accepts."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from deploy.demo import environment, narration, releases, webhook_model
from deploy.demo.narration import tries
from deploy.demo.scenarios import incident_results, rollouts, runner
from deploy.demo.scenarios.config_drift import CONFIG_DRIFT
from deploy.demo.scenarios.error_reports import ERROR_REPORTS
from deploy.demo.scenarios.governance import GOVERNANCE
from deploy.demo.scenarios.host_faults import HOST_FAULTS
from deploy.demo.scenarios.plugin_faults import EXCLUSIVE, PLUGIN_FAULTS
from deploy.demo.scenarios.rollouts import ROLLOUTS
from deploy.demo.scenarios.scenario import outcome, seconds
from deploy.demo.simulated_agent import Slot
from deploy.demo.timeline_follower import reports
from libs.common.facts import NAMES
from prunella.v1.events_pb2 import (
    AttemptFailed,
    AttemptRefused,
    AttemptRolledBack,
    AttemptStaged,
    AttemptSucceeded,
    Event,
    IncidentEscalated,
    IncidentMitigated,
    IncidentOpened,
)
from services.decider import playbook


def at(second: int, **told: object) -> Event:
    return Event(time=Timestamp(seconds=second), **told)  # type: ignore[arg-type]


def test_an_outcome_names_every_end_in_the_order_of_time() -> None:
    story = [
        at(9, incident_mitigated=IncidentMitigated()),
        at(1, incident_opened=IncidentOpened()),
        at(3, attempt_rolled_back=AttemptRolledBack(dead_man=True)),
        at(4, attempt_failed=AttemptFailed(failure="staging_failed")),
        at(8, attempt_succeeded=AttemptSucceeded()),
    ]
    assert outcome(story) == "rolled_back by the agent, staging_failed, success, mitigated"
    assert outcome([at(1, attempt_refused=AttemptRefused(gate="SEVERITY"))]) == "refused SEVERITY"
    assert outcome([at(1, incident_escalated=IncidentEscalated())]) == "a person is asked"
    assert outcome([]) == ""


def test_the_newest_fact_is_the_newest_by_its_own_time() -> None:
    story = [at(5, attempt_succeeded=AttemptSucceeded(attempt="b")), at(2, attempt_succeeded=AttemptSucceeded())]
    newest = incident_results.newest(story, "attempt_succeeded", "attempt_rolled_back")
    assert newest is not None and newest.attempt_succeeded.attempt == "b"
    assert incident_results.newest(story, "incident_opened") is None
    assert incident_results.attempt(story) == ""


def test_a_step_that_was_not_taken_has_no_duration() -> None:
    assert seconds(None, None) is None


def test_a_document_passes_only_when_all_is_well() -> None:
    good = {"scenarios": [{"ok": True}], "lost": 0, "different": []}
    assert runner.passed(good)
    assert not runner.passed(good | {"lost": 1})
    assert not runner.passed(good | {"different": ["ops says otherwise"]})
    assert not runner.passed(good | {"scenarios": [{"ok": True}, {"ok": False}]})


def test_scenarios_are_chosen_by_name_and_all_by_none() -> None:
    assert [scenario.name for scenario in runner.select(["dead_man"])] == ["dead_man"]
    every = (PLUGIN_FAULTS, HOST_FAULTS, CONFIG_DRIFT, ERROR_REPORTS, GOVERNANCE, ROLLOUTS, EXCLUSIVE)
    assert len(runner.select([])) == sum(map(len, every)) == 19
    with pytest.raises(KeyError):
        runner.select(["no_such"])


def test_lines_are_about_facts_that_exist_and_fit_a_line() -> None:
    assert set(narration.LINES) <= NAMES
    failed = AttemptStaged(tests_passed=2, tests_run=6, failures=["x" * 300])
    line = narration.LINES["attempt_staged"](Event(attempt_staged=failed))
    assert line.startswith("staging failed 2/6") and len(line) <= narration.LONGEST
    passed = narration.LINES["attempt_staged"](
        Event(attempt_staged=AttemptStaged(passed=True, tests_run=6, tests_passed=6))
    )
    assert passed.startswith("staged 6/6")


def test_the_playbook_of_the_demo_is_accepted_and_names_releases_that_exist() -> None:
    path = Path(environment.ENVIRONMENT["DECIDER_PLAYBOOK"])
    parsed = playbook.parse(path.read_text(), path.name)
    named = {known.remedy.release for known in parsed.remedies} | {known.from_release for known in parsed.remedies}
    assert named - {"", "*"} <= {*releases.VERSIONS, *releases.RENAMED}
    first = parsed.matching("webhook_fail_rate", "relay", "1.2.2")
    assert [known.remedy.release for known in first] == ["1.3.0", "1.2.3"]


def test_scenarios_of_one_lane_play_one_after_the_other_and_all_others_side_by_side() -> None:
    lanes = runner.lanes(runner.select([]))
    assert [[scenario.name for scenario in lane] for lane in lanes if len(lane) > 1] == [
        ["kill_switch", "heal_patch"],
        [scenario.name for scenario in ERROR_REPORTS],
    ]


def test_a_fact_about_many_tasks_is_about_each_of_their_reports() -> None:
    event = Event()
    event.tasks_finished.outcomes.add(report="errorReports/r1", state="retrying", failure="TOOL_FAILED")
    event.tasks_finished.outcomes.add(report="errorReports/r2", state="completed")
    assert reports(event) == {"r1", "r2"}
    assert tries(event) == [("errorReports/r1", "tools failed (TOOL_FAILED), again later")]


def rollout_told(second: int, fact: str, wave: int = 0) -> Event:
    event = Event()
    getattr(event, fact).rollout, getattr(event, fact).wave = "r1", wave
    event.time.FromSeconds(second)
    return event


def test_the_story_of_a_rollout_is_told_in_its_own_order_and_about_no_other() -> None:
    told = [
        rollout_told(3, "rollout_wave_passed", 2),
        rollout_told(1, "rollout_created"),
        rollout_told(4, "rollout_succeeded", 2),
        rollout_told(2, "rollout_wave_passed", 1),
    ]
    assert rollouts.outcome(told) == "wave 1 passed, wave 2 passed, succeeded"
    assert rollouts.outcome([rollout_told(2, "rollout_rolled_back", 1), rollout_told(1, "rollout_halted", 1)]) == (
        "halted in wave 1, taken back"
    )
    assert all(rollouts.about(event, "r1") for event in told)
    assert not rollouts.about(told[0], "r2")
    assert not rollouts.about(Event(), "r1")


def test_webhooks_fail_by_release_by_sink_and_by_configuration() -> None:
    model = webhook_model.WebhookModel()
    assert model.failure_rate("till", Slot("1.2.3", "d")) == 0.0
    assert model.failure_rate("till", Slot("1.3.0", "d")) == webhook_model.SPOILED["1.3.0"]
    assert model.failure_rate("till", Slot("1.2.3", "d", config='{"timeout_seconds":0.2}')) == webhook_model.SLOW_SHARE
    assert model.failure_rate("till", Slot("1.2.3", "d", config='{"timeout_seconds":5}')) == 0.0
    model.refused["till"] = 0.9
    assert model.failure_rate("till", Slot("1.3.0", "d")) == 0.9
    assert model.failure_rate("kiosk", Slot("1.2.3", "d")) == 0.0
