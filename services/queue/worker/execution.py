"""One task: the strategy's steps, then its check, and the words that end the try.

Rule: nothing is called before everything is known to be allowed: every tool exists, a writing one (marked so by the
strategy or by the configuration, whichever is stricter) is approved, every argument can be filled in. The first step
that fails ends the try. Success is what the check shows, never what a step says; a strategy without a check ends with
its findings, as a failure that no other try can help.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import structlog

from libs.common.text import clean_values
from prunella.v1 import queue_pb2
from services.queue.worker import steps
from services.queue.worker.config import Config
from services.queue.worker.tool_result import TaskFailed, ToolResult
from services.queue.worker.tool_servers import ToolServers

LONGEST_DETAILS = 60 * 1024
EXCERPTS = (2000, 400, 80, 0)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ExecutionResult:
    """How a try ended; `failure` is empty for success."""

    failure: str = ""
    explanation: str = ""
    permanent: bool = False
    tools: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    check: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def success(self) -> bool:
        """Whether the check passed."""
        return not self.failure

    def details(self) -> str:
        """The try as a JSON object: each call with arguments, an excerpt of its answer and seconds; the check."""
        for longest in EXCERPTS:
            calls = [call | {"answer": call["answer"][:longest]} for call in self.calls]
            fields = {"explanation": self.explanation, "steps": calls, "check": self.check}
            text = json.dumps(clean_values(fields), ensure_ascii=False, default=str)
            if len(text.encode()) <= LONGEST_DETAILS:
                return text
        return json.dumps(
            {"explanation": clean_values(self.explanation), "steps": f"{len(self.calls)} calls, too much to be kept"}
        )


@dataclass(frozen=True, slots=True)
class _Call:
    tool: str
    arguments: dict[str, Any]
    purpose: str


class Execution:
    """One try at a leased task."""

    def __init__(self, leased: queue_pb2.LeasedTask, servers: ToolServers, config: Config) -> None:
        self.result = ExecutionResult()
        self._leased = leased
        self._servers = servers
        self._config = config

    async def run(self) -> ExecutionResult:
        """Carries the strategy out; every outcome is an Ending."""
        began = time.monotonic()
        try:
            await self._carry_out()
        except TaskFailed as failed:
            self._fail(failed.reason, failed.explanation, permanent=failed.permanent)
        except steps.BadStrategy as error:
            self._fail("STRATEGY_INVALID", str(error), permanent=True)
        self.result.seconds = time.monotonic() - began
        return self.result

    async def _carry_out(self) -> None:
        strategy = self._leased.strategy
        calls = [self._plan(step) for step in strategy.steps]
        has_check = bool(strategy.check.step.tool)
        last = self._plan(strategy.check.step) if has_check else None
        check = steps.check(strategy.check.path, strategy.check.comparison, strategy.check.value) if has_check else None
        for call in calls:
            answer = await self._call(call)
            if answer.is_error:
                raise TaskFailed("TOOL_FAILED", f"{call.tool} answered: {answer.text}")
        if last is None or check is None:
            raise TaskFailed(
                "NO_CHECK", f"{strategy.name or 'the strategy'} has no check: see findings", permanent=True
            )
        await self._check(last, check)

    def _plan(self, step: queue_pb2.StrategyStep) -> _Call:
        tool = self._servers.tool(step.tool)
        if (step.write or tool.write) and not self._leased.strategy.approved:
            explanation = (
                f"{step.tool} writes, and {self._leased.strategy.name} is not approved; a person can approve it"
            )
            raise TaskFailed("WRITE_NOT_APPROVED", explanation, permanent=True)
        return _Call(step.tool, steps.arguments(step.arguments, facts(self._leased)), step.purpose)

    async def _check(self, call: _Call, check: steps.Check) -> None:
        for number in range(1, self._config.check_attempts + 1):
            answer = await self._call(call)
            if answer.is_error:
                outcome = steps.CheckResult(False, None, f"{call.tool} answered: {answer.text[:300]}")
            else:
                outcome = steps.evaluate(check, answer.structure)
            self.result.check = {
                "tool": call.tool, "path": check.path, "comparison": check.comparison, "value": check.value,
                "found": json.dumps(outcome.found, default=str)[:500], "passed": outcome.passed, "tries": number,
                "explanation": outcome.explanation,
            }  # fmt: skip
            if outcome.passed:
                self.result.explanation = outcome.explanation
                return
            if number < self._config.check_attempts:
                await asyncio.sleep(self._config.check_pause_seconds)
        raise TaskFailed("CHECK_FAILED", str(self.result.check["explanation"]))

    async def _call(self, call: _Call) -> ToolResult:
        if len(self.result.calls) >= self._config.budget:
            raise TaskFailed("BUDGET_SPENT", f"more than {self._config.budget} calls for one task", permanent=True)
        entry: dict[str, Any] = {
            "tool": call.tool, "purpose": call.purpose, "arguments": call.arguments, "answer": "", "outcome": "cut off",
        }  # fmt: skip
        self.result.calls.append(entry)
        if call.tool not in self.result.tools:
            self.result.tools.append(call.tool)
        began = time.monotonic()
        try:
            answer = await self._servers.call(call.tool, call.arguments)
        except TaskFailed as failed:
            entry |= {"outcome": failed.reason, "answer": failed.explanation}
            raise
        else:
            entry |= {"outcome": "error" if answer.is_error else "ok", "answer": answer.text[: EXCERPTS[0]]}
            return answer
        finally:
            entry["seconds"] = round(time.monotonic() - began, 3)
            _log.info("step", task=self._leased.task.name, tool=call.tool, outcome=entry["outcome"])

    def _fail(self, reason: str, explanation: str, *, permanent: bool) -> None:
        self.result.failure, self.result.explanation, self.result.permanent = reason, explanation, permanent


def facts(leased: queue_pb2.LeasedTask) -> dict[str, str]:
    """What may fill a strategy's places: names the plane validated; nothing that anybody wrote as text."""
    report = leased.report
    return {
        "plugin": report.plugin.removeprefix("plugins/"),
        "label": report.label.removeprefix("plugins/"),
        "merchant": report.merchant.removeprefix("merchants/"),
        "package": report.package.removeprefix("packages/"),
        "release": report.release.rpartition("/")[2],
    }
