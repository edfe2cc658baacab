"""RPCs that the command line names as text exist, and what changes something names itself by a request id."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli.plane_client import SERVICES, request

ROOT = Path(__file__).resolve().parents[2]
RPC = re.compile(rf'"((?:{"|".join(SERVICES)})\.[A-Z]\w+)"')
NAMES = sorted({name for path in (ROOT / "cli").rglob("*.py") for name in RPC.findall(path.read_text())})


def test_the_command_line_names_rpcs() -> None:
    assert len(NAMES) > 40


@pytest.mark.parametrize("name", NAMES)
def test_a_named_rpc_exists(name: str) -> None:
    assert request(name).DESCRIPTOR.name == f"{name.partition('.')[2]}Request"


def test_every_request_that_changes_something_has_an_id_of_its_own() -> None:
    first, second = request("ingest.CloseIncident"), request("ingest.CloseIncident")
    assert first.request_id
    assert first.request_id != second.request_id
    assert request("ingest.CloseIncident", request_id="given").request_id == "given"


def test_a_request_refuses_a_field_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="no_such_field"):
        request("ingest.CloseIncident", no_such_field="")
