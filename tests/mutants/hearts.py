"""The hearts, each with the unit tests that are to notice mistakes in it.

Rule: a heart is pure, so its own unit tests, without a server, are what must notice. A heart is named by its file.
"""

from __future__ import annotations

from collections.abc import Mapping

HEARTS: Mapping[str, tuple[str, ...]] = {
    "services/ingest/boots.py": ("test_boots",),
    "services/ingest/command_lifecycle.py": ("test_commands",),
    "services/ingest/incident_lifecycle.py": ("test_incidents", "test_reopening"),
    "services/ingest/liveness.py": ("test_liveness",),
    "services/ingest/observation.py": ("test_detection", "test_boots"),
    "services/ingest/rate_reports.py": ("test_rate_reports",),
    "services/ingest/reopening.py": ("test_reopening",),
    "services/ingest/storm.py": ("test_storm",),
    "services/ingest/windows.py": ("test_detection",),
    "services/decider/choice.py": ("test_choice",),
    "services/decider/learning.py": ("test_learning",),
    "services/patcher/attempt/machine.py": ("test_attempt", "test_attempt_faults", "test_attempt_laws"),
    "services/patcher/evidence.py": ("test_evidence", "test_verdict"),
    "services/patcher/freeze.py": ("test_freeze",),
    "services/patcher/policy/gates.py": ("test_policy_gates",),
    "services/patcher/policy/steps.py": ("test_policy_gates", "test_versions"),
    "services/patcher/rollout/judging.py": ("test_rollout_judging", "test_rollout_comparison"),
    "services/patcher/rollout/machine.py": ("test_rollout_machine", "test_rollout_laws"),
    "services/patcher/sequential.py": ("test_sequential", "test_rollout_judging", "test_verdict"),
    "services/patcher/verdict.py": ("test_verdict",),
    "services/patcher/watch.py": ("test_watch",),
    "services/queue/kinds.py": ("test_kinds",),
    "services/queue/leases.py": ("test_leases",),
    "services/queue/model_answer.py": ("test_model_answer",),
    "services/queue/model_parameters.py": ("test_model_parameters",),
    "services/queue/similarity.py": ("test_similarity",),
    "services/queue/strategies.py": ("test_strategies",),
    "services/queue/triage.py": ("test_triage",),
    "services/ops/attention.py": ("test_attention", "test_attention_routes"),
    "services/ops/notify/summaries.py": ("test_notify_summaries",),
    "libs/agent/prunella_agent/conditions.py": ("test_agent_conditions", "test_agent_host"),
    "libs/agent/prunella_agent/requirements.py": ("test_requirements",),
    "libs/agent/prunella_agent/versions.py": ("test_versions",),
    "libs/common/breaker.py": ("test_breaker",),
    "libs/common/timestamps.py": ("test_timestamps",),
}
