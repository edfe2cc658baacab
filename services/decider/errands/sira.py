"""The client of the external SIRA: one bounded question, one checked answer.

Rule: `libs.common.external_http` sets the limits of the way; here every answer is checked before it counts: JSON with
the fields below, each within its bounds. What fails is one failure for the breaker. The question holds what is needed
to choose a remedy; never the inputs that failed, never our token beyond the header.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from libs.common.clock import Clock
from libs.common.errors import Unavailable
from libs.common.external_http import ExternalHttp
from services.decider.decision import DecisionInputs, Opinion
from services.decider.explanation import printable

PATH = "/api/sira/decide"
LONGEST_WHY = 500


class Answer(msgspec.Struct):
    """What SIRA must answer; other fields are ignored."""

    action: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    patch_version: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    explanation: Annotated[str, msgspec.Meta(max_length=4000)] | None = None
    model_version: Annotated[str, msgspec.Meta(max_length=100)] | None = None


def request_body(merchant: str, plugin: str, inputs: DecisionInputs, history: Mapping[str, int]) -> dict[str, Any]:
    """The body of the question, with the field names SIRA knows."""
    return {
        "merchant_id": merchant,
        "plugin_id": plugin,
        "telemetry": {
            **inputs.figures,
            "summary": inputs.summary,
            "package": inputs.package,
            "environment": inputs.environment,
            "config_digest": inputs.config_digest,
        },
        "severity": inputs.severity,
        "incident_type": inputs.symptom,
        "current_version": inputs.release,
        "historical_data": {
            **history,
            "round": inputs.round,
            "tried": [
                {"action": tried.action, "version": tried.release, "outcome": tried.outcome} for tried in inputs.tried
            ],
        },
    }


def read_answer(body: bytes) -> Opinion:
    """The opinion in an answer. Raises Unavailable (SIRA_BAD_ANSWER) when it does not fit."""
    try:
        answer = msgspec.json.decode(body, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"SIRA's answer does not fit: {printable(str(error), 200)}"
        raise Unavailable(message, reason="SIRA_BAD_ANSWER") from error
    return Opinion(
        action=answer.action,
        release=answer.patch_version or "",
        confidence=answer.confidence,
        why=printable(answer.explanation or "", LONGEST_WHY),
        model=printable(answer.model_version or "", 100),
    )


class Sira(ExternalHttp):
    """One SIRA behind a breaker. `timeout` bounds a whole question, body included; in seconds."""

    def __init__(self, url: str, token: str, timeout: float, clock: Clock) -> None:
        super().__init__("SIRA", "SIRA", url.rstrip("/") + PATH, token, timeout, clock)

    async def opinion(self, body: Mapping[str, Any], request: str) -> Opinion:
        """SIRA's opinion. `request` is the same in every repeat. Raises Unavailable whatever goes wrong."""
        return await self.ask(msgspec.json.encode(body), request, read_answer)
