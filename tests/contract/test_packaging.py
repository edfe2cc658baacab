"""What the two distributions say of themselves is true, and is said once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def described(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path / "pyproject.toml").read_text())


PLANE, AGENT = described("."), described("libs/agent")
NEEDED = {
    "prunella": [Requirement(text) for text in PLANE["project"]["dependencies"]],
    "prunella-agent": [Requirement(text) for text in AGENT["project"]["optional-dependencies"]["supervisor"]],
}
AGENT_ITSELF = next(wanted for wanted in NEEDED["prunella"] if wanted.name == "prunella-agent")


def test_the_version_stands_in_one_place() -> None:
    assert str(AGENT_ITSELF.specifier).startswith("==")
    assert AGENT_ITSELF.extras == {"supervisor"}
    for project, place in ((PLANE, ROOT), (AGENT, ROOT / "libs" / "agent")):
        assert project["project"]["dynamic"] == ["version"]
        source = project["tool"]["hatch"]["version"]
        found = re.findall(source["pattern"], (place / source["path"]).read_text())
        assert found == [str(AGENT_ITSELF.specifier).removeprefix("==")]


def test_a_checkout_installs_what_its_agent_needs_and_no_agent() -> None:
    overrides = [line for line in (ROOT / "deploy/overrides.txt").read_text().splitlines() if not line.startswith("#")]
    assert [Requirement(line).name for line in overrides] == ["prunella-agent"]
    assert not [line for line in overrides if (marker := Requirement(line).marker) is None or marker.evaluate()]
    plane = {wanted.name: wanted.specifier for wanted in NEEDED["prunella"]}
    assert {wanted.name: wanted.specifier for wanted in NEEDED["prunella-agent"]}.items() <= plane.items()


@pytest.mark.parametrize("distribution", NEEDED)
def test_what_the_generated_code_refuses_to_run_with_is_never_installed(distribution: str) -> None:
    stub = (ROOT / "libs/agent/prunella/v1/agent_pb2_grpc.py").read_text()
    messages = (ROOT / "libs/agent/prunella/v1/agent_pb2.py").read_text()
    oldest = {
        "grpcio": re.findall(r"GRPC_GENERATED_VERSION = '(\S+)'", stub),
        "protobuf": re.findall(r"Protobuf Python Version: (\S+)", messages),
    }
    floors = {
        wanted.name: Version(one.version) for wanted in NEEDED[distribution] for one in wanted.specifier
        if one.operator == ">="
    }  # fmt: skip
    for name, versions in oldest.items():
        assert len(versions) == 1
        assert floors[name] >= Version(versions[0]), f"write {name}>={versions[0]} in both pyproject.toml"
