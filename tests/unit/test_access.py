"""One table says who may call what, and it says it for every method there is."""

import pytest

from libs.common import access
from libs.common.errors import Denied, Unauthenticated
from prunella.v1 import agent_pb2, decider_pb2, events_pb2, ingest_pb2, ops_pb2, patcher_pb2, queue_pb2

FILES = (agent_pb2, decider_pb2, events_pb2, ingest_pb2, ops_pb2, patcher_pb2, queue_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
KEY = "11" * 32
INGEST = "/prunella.v1.IngestService/"
READS = ("Get", "List", "Explain", "Preview", "Watch", "Prove", "Export", "Check")


def as_(name: str, *, key: str = KEY, operator: str = "") -> list[tuple[str, str]]:
    metadata = [("authorization", access.service_token(key, name))]
    return [*metadata, ("prunella-operator", operator)] if operator else metadata


def test_every_method_of_every_service_is_in_the_table_and_nothing_else() -> None:
    assert set(access.ACCESS) == METHODS


def test_only_patcher_commands_agents_and_only_ingest_asks_for_permits() -> None:
    for method in ("IssueCommand", "WithdrawCommand", "GetTelemetry"):
        assert access.ACCESS[INGEST + method].callers == {"patcher"}
    for method in ("AuthorizeApply", "FetchRelease"):
        assert access.ACCESS[f"/prunella.v1.PatcherService/{method}"].callers == {"ingest"}


def test_what_changes_something_is_closed_to_callers_without_a_reason() -> None:
    for method, allowed in access.ACCESS.items():
        reads = method.rpartition("/")[2].startswith(READS)
        gateway = method.startswith("/prunella.v1.AgentGateway/")
        # Every service may tell of its own errors, and of nobody else's (tests/service/test_queue_reports.py).
        if not reads and not gateway and not method.endswith("/ReportErrors"):
            assert not allowed.callers & {"decider", "queue"}, method


def test_each_caller_is_known_by_its_own_proof() -> None:
    for name in access.SERVICES:
        assert access.check(INGEST + "GetPlugin", as_(name), KEY) == name
    assert access.check(INGEST + "GetPlugin", as_("operator"), KEY) == "operators/local"


def test_a_proof_of_one_name_does_not_serve_another() -> None:
    proof = access.service_token(KEY, "ingest").partition(":")[2]
    with pytest.raises(Unauthenticated):
        access.check(INGEST + "IssueCommand", [("authorization", f"Service patcher:{proof}")], KEY)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Service",
        "Service patcher",
        "Service patcher:",
        "Service patcher:ü",
        "Basic x:y",
        "Service stranger:00",
        "\x00",
    ],
)
def test_a_damaged_credential_is_no_credential(authorization: str) -> None:
    with pytest.raises(Unauthenticated):
        access.check(INGEST + "IssueCommand", [("authorization", authorization)], KEY)


def test_a_name_nobody_has_is_turned_away_even_with_a_good_proof() -> None:
    with pytest.raises(Unauthenticated):
        access.check(INGEST + "GetPlugin", as_("stranger"), KEY)


def test_a_method_that_is_not_listed_is_for_nobody() -> None:
    with pytest.raises(Denied) as caught:
        access.check(INGEST + "DropEverything", as_("operator"), KEY)
    assert caught.value.reason == "METHOD_NOT_LISTED"


def test_only_people_have_persons_names() -> None:
    close = INGEST + "CloseIncident"
    assert access.check(close, as_("operator", operator="ada"), KEY) == "operators/ada"
    assert access.check(close, as_("ops", operator="ada"), KEY) == "operators/ada"
    assert access.check(close, as_("ops"), KEY) == "ops"
    assert access.check(INGEST + "IssueCommand", as_("patcher", operator="ada"), KEY) == "patcher"
    with pytest.raises(Unauthenticated):
        access.check(close, as_("operator", operator="a/b"), KEY)


def test_agents_enter_the_gateway_and_nothing_else() -> None:
    agent = [("authorization", "Plugin p1:secret")]
    assert access.check("/prunella.v1.AgentGateway/Connect", agent, KEY) == "agent"
    for method, allowed in access.ACCESS.items():
        if "agent" not in allowed.callers:
            with pytest.raises(Denied):
                access.check(method, agent, KEY)


def test_enrolling_needs_no_credential_but_connecting_does() -> None:
    assert access.check("/prunella.v1.AgentGateway/Enroll", [], KEY) == "anonymous"
    with pytest.raises(Unauthenticated):
        access.check("/prunella.v1.AgentGateway/Connect", [], KEY)


def test_health_and_reflection_are_open() -> None:
    assert access.check("/grpc.health.v1.Health/Check", [], KEY) == "anonymous"
    assert access.is_open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    assert not access.is_open("/prunella.v1.OpsService/GetTrace")


class Context:
    """As much of a gRPC context as a credential needs."""

    def __init__(self, authorization: str) -> None:
        self.metadata = (("authorization", authorization),) if authorization else None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...] | None:
        return self.metadata


def test_an_agents_credential_is_plugin_and_secret() -> None:
    assert access.agent_credential(Context("Plugin p1:s3:cret")) == ("p1", "s3:cret")


@pytest.mark.parametrize(
    "authorization", ["", "Plugin", "Plugin p1", "Plugin p1:", "Plugin :x", "Plugin a/b:x", "Service p1:x"]
)
def test_a_damaged_agents_credential_is_none(authorization: str) -> None:
    with pytest.raises(Unauthenticated):
        access.agent_credential(Context(authorization))
