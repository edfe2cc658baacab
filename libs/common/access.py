"""Who may call what: one table, default deny.

A service proves its name with `authorization: Service <name>:<hmac>`, where the hmac is made from the shared key. An
agent sends `Plugin <plugin>:<secret>`, which only ingest can check, so the guard lets agent methods through to their
handlers. A person comes as the caller `operator` (the command line) or through `ops`; `prunella-operator` says who it
is. Health and reflection are open. A method that is not in the table does not exist for anybody.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from libs.common import names
from libs.common.errors import Denied, Unauthenticated

SERVICES: Final = frozenset({"ingest", "decider", "patcher", "queue", "ops"})
# `worker` runs tasks of the queue; `mcp` is an AI agent's door: it reads and proposes, and can do nothing else.
WORKER: Final = "worker"
MCP: Final = "mcp"
CALLERS: Final = SERVICES | {"operator", WORKER, MCP}
AGENT: Final = "agent"
NOBODY: Final = "anonymous"
LOCAL_OPERATOR: Final = "local"

AUTHORIZATION: Final = "authorization"
OPERATOR: Final = "prunella-operator"

OPEN_PREFIXES: Final = ("/grpc.health.v1.Health/", "/grpc.reflection.")


@dataclass(frozen=True, slots=True)
class Access:
    """Which callers may call a method, and which role a person needs for it (empty: not for people)."""

    callers: frozenset[str]
    role: str = ""


# A read changes nothing and shows no secret.
_READ: Final = Access(CALLERS, role="viewer")
# What people do; ops passes it on unchanged.
_COMMAND: Final = Access(frozenset({"operator", "ops"}), role="operator")
_APPROVAL: Final = Access(frozenset({"operator", "ops"}), role="approver")
_ADMINISTRATION: Final = Access(frozenset({"operator", "ops"}), role="admin")
_AGENT: Final = Access(frozenset({AGENT}))
_WORK: Final = Access(frozenset({WORKER, "operator"}), role="operator")
_ANYBODY: Final = Access(frozenset({AGENT, NOBODY}) | CALLERS)


def _only(*callers: str) -> Access:
    return Access(frozenset(callers))


_TABLE: Final[Mapping[str, Mapping[str, Access]]] = {
    "AgentGateway": {
        # The token in the request is the credential.
        "Enroll": _ANYBODY,
        "Connect": _AGENT,
        # Each entry proves its own identity.
        "ReportBatch": _ANYBODY,
        "Heartbeat": _AGENT,
        "AckCommand": _AGENT,
        "FailCommand": _AGENT,
        "FetchArtifact": _AGENT,
    },
    "IngestService": {
        "CreateEnrollmentToken": _COMMAND,
        "GetPlugin": _READ,
        "ListPlugins": _READ,
        "GetFleet": _READ,
        "RetirePlugin": _COMMAND,
        "ReleaseFromQuarantine": _COMMAND,
        "GetTelemetry": _only("patcher"),
        "GetIncident": _READ,
        "ListIncidents": _READ,
        "CloseIncident": _COMMAND,
        "EscalateIncident": _COMMAND,
        "ListStorms": _READ,
        "EndStorm": _COMMAND,
        "IssueCommand": _only("patcher"),
        "WithdrawCommand": _only("patcher"),
        "GetCommand": _READ,
        "ListCommands": _READ,
    },
    "DeciderService": {
        "GetDecision": _READ,
        "ListDecisions": _READ,
        "ExplainDecision": _READ,
        "PreviewDecision": _READ,
        "GetLearning": _READ,
        "GetPlaybook": _READ,
    },
    "PatcherService": {
        "GetPolicy": _READ,
        "UpdatePolicy": _ADMINISTRATION,
        "EngageKillSwitch": _COMMAND,
        "ReleaseKillSwitch": _ADMINISTRATION,
        "ListKillSwitches": _READ,
        "PublishRelease": _ADMINISTRATION,
        "GetRelease": _READ,
        "ListReleases": _READ,
        "FetchRelease": _only("ingest"),
        "GetAttempt": _READ,
        "ListAttempts": _READ,
        "CreateAttempt": _COMMAND,
        "CancelAttempt": _COMMAND,
        "RollBackAttempt": _COMMAND,
        "RollBackRecent": _COMMAND,
        "ApproveAttempt": _APPROVAL,
        "RejectAttempt": _APPROVAL,
        "PreviewPolicy": _READ,
        "ListPolicyChanges": _READ,
        "CreateRollout": _COMMAND,
        "GetRollout": _READ,
        "ListRollouts": _READ,
        "PauseRollout": _COMMAND,
        "ResumeRollout": _COMMAND,
        "AbortRollout": _COMMAND,
        "PromoteRollout": _APPROVAL,
        "PublishConfiguration": _ADMINISTRATION,
        "GetConfiguration": _READ,
        "ListConfigurations": _READ,
        "AuthorizeApply": _only("ingest"),
    },
    "QueueService": {
        "ReportErrors": Access(SERVICES | {"operator"}, role="operator"),
        "GetErrorReport": _READ,
        "ListErrorReports": _READ,
        "ExplainErrorReport": _READ,
        "CloseErrorReport": _COMMAND,
        "MergeErrorReports": _COMMAND,
        "SplitErrorReport": _COMMAND,
        "ListMergeSuggestions": _READ,
        "ClaimTasks": _WORK,
        "ExtendTask": _WORK,
        "CompleteTask": _WORK,
        "CompleteTasks": _WORK,
        "GetTask": _READ,
        "ListTasks": _READ,
        "RetryTask": _COMMAND,
        "CancelTask": _COMMAND,
        "GetQueueStats": _READ,
        "ResetStuckTasks": _COMMAND,
        "CleanUpTasks": _COMMAND,
        "GetStrategy": _READ,
        "ListStrategies": _READ,
        "ApproveStrategy": _APPROVAL,
        "RevokeStrategy": _COMMAND,
        "CreateProposal": Access(frozenset({MCP, "operator", "ops"}), role="operator"),
        "ListProposals": _READ,
        "ApproveProposal": _APPROVAL,
        "RejectProposal": _APPROVAL,
    },
    "OpsService": {
        "ListTimeline": _READ,
        "WatchTimeline": _READ,
        "GetTrace": _READ,
        "GetOverview": _READ,
        "GetKpis": _READ,
        "ListStories": _READ,
        "GetStory": _READ,
        "GetIncidentAnnotations": _READ,
        "AssignIncident": _COMMAND,
        "CommentOnIncident": _COMMAND,
        "GetNotificationSettings": _READ,
        "UpdateNotificationSettings": _ADMINISTRATION,
        "TestChannel": _ADMINISTRATION,
        "ListNotifications": _READ,
        "GetNotification": _READ,
        "AcknowledgeNotification": _COMMAND,
        "ListDeadLetters": _READ,
        "RedriveDeadLetter": _COMMAND,
        "ListAudit": _READ,
        "GetAuditCheckpoint": _READ,
        "ProveAudit": _READ,
        "ExportAudit": _READ,
        "CheckAudit": _READ,
    },
}

ACCESS: Final[Mapping[str, Access]] = {
    f"/prunella.v1.{service}/{method}": access
    for service, methods in _TABLE.items()
    for method, access in methods.items()
}

_caller: ContextVar[str] = ContextVar("caller", default=NOBODY)


def service_token(key: str, name: str) -> str:
    """The `authorization` value of a caller; `key` is the shared key in hex."""
    return f"Service {name}:{_proof(key, name)}"


def caller(_context: object = None) -> str:
    """Who asks in the running handler: a service's name, `operators/{operator}`, `agent` or `anonymous`.

    The guard of `libs.common.rpc` found it out before the handler ran; the context is accepted for readability only.
    """
    return _caller.get()


def set_caller(name: str) -> None:
    """Tell the rest of this call who asks; only for the guard, and for doors that checked an identity themselves."""
    _caller.set(name)


def passes(method: str) -> bool:
    """Whether ops passes this method of another service on for people: it has a role, and ops is among the callers."""
    allowed = ACCESS.get(method)
    return allowed is not None and bool(allowed.role) and "ops" in allowed.callers and "OpsService" not in method


def is_open(method: str) -> bool:
    """Whether a method needs no entry in the table: health and reflection."""
    return method.startswith(OPEN_PREFIXES)


def check(method: str, metadata: Iterable[tuple[str, str | bytes]], key: str) -> str:
    """Who calls, when they may call this method; Unauthenticated or Denied when not."""
    if is_open(method):
        return NOBODY
    allowed = ACCESS.get(method)
    if allowed is None:
        raise Denied(f"{method} is not for anybody", reason="METHOD_NOT_LISTED", method=method)
    authorization, person = _read(metadata)
    identity = _identify(authorization, key)
    if identity not in allowed.callers:
        if identity == NOBODY:
            raise Unauthenticated(f"{method} needs a credential", reason="CREDENTIAL_MISSING", method=method)
        raise Denied(f"{identity} may not call {method}", reason="CALLER_NOT_ALLOWED", method=method, caller=identity)
    if identity == "operator" or (identity == "ops" and person):
        return _person(person)
    return identity


def agent_credential(context: object) -> tuple[str, str]:
    """Plugin id and secret an agent sent; Unauthenticated when it sent none. Nothing is checked but the shape."""
    metadata = context.invocation_metadata()  # type: ignore[attr-defined]
    authorization, _ = _read(metadata or ())
    return plugin_credential(authorization)


def plugin_credential(authorization: str) -> tuple[str, str]:
    """Plugin id and secret of an `authorization` value; Unauthenticated when it is none of a plugin."""
    scheme, _, credential = authorization.partition(" ")
    plugin, found, secret = credential.partition(":")
    if scheme != "Plugin" or not found or not secret or not names.is_id(plugin):
        raise Unauthenticated("an agent's call needs its plugin's credential", reason="CREDENTIAL_MISSING")
    return plugin, secret


def _read(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, str]:
    authorization = person = ""
    for name, value in metadata:
        if name == AUTHORIZATION and isinstance(value, str):
            authorization = value
        elif name == OPERATOR and isinstance(value, str):
            person = value
    return authorization, person


def _identify(authorization: str, key: str) -> str:
    scheme, _, credential = authorization.partition(" ")
    if not authorization:
        return NOBODY
    if scheme == "Plugin":
        return AGENT
    name, _, proof = credential.partition(":")
    if (
        scheme != "Service"
        or not hmac.compare_digest(proof.encode(), _proof(key, name).encode())
        or name not in CALLERS
    ):
        raise Unauthenticated("the credential is not valid", reason="CREDENTIAL_INVALID")
    return name


def _person(person: str) -> str:
    if person and not names.is_id(person):
        raise Unauthenticated("the operator's name is not valid", reason="OPERATOR_INVALID")
    return names.operator(person or LOCAL_OPERATOR)


def _proof(key: str, name: str) -> str:
    return hmac.new(bytes.fromhex(key), name.encode(), hashlib.sha256).hexdigest()
