"""What is hashed or signed has one canonical form: these bytes, whatever a class or an attribute is called.

The golden vectors are for ever. A form that has to change becomes another version with vectors of its own.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import rfc8785

from prunella_agent import configurations, dsse, releases
from services.patcher.approvals import plan
from services.patcher.staging import suite

GOLDEN = json.loads((Path(__file__).parent / "golden" / "canonical_forms.json").read_text())
PLAN, RELEASE, CONFIGURATION, DOCUMENT, SUITE, ENVELOPE = (
    GOLDEN[name] for name in ("plan", "release", "configuration", "document", "staging_suite", "envelope")
)
FIELDS = {
    "plan": ("subject", "action", "package", "from_release", "to_release", "digest", "scope", "policy_version",
             "config_digest", "rollout"),
    "release": ("package", "version", "digest", "size", "entrypoint", "probe", "smoke"),
    "configuration": ("package", "version", "digest", "plugin"),
}  # fmt: skip


def values(kind: str) -> tuple[Any, ...]:
    fields = (GOLDEN[kind]["input"][name] for name in FIELDS[kind])
    return tuple(tuple(value) if isinstance(value, list) else value for value in fields)


MADE: dict[str, tuple[ModuleType, str, Callable[[Any, Any], bytes]]] = {
    "plan": (plan, "Plan", lambda module, made: module.plan_text(made).encode()),
    "release": (releases, "Manifest", lambda _module, made: made.encode()),
    "configuration": (configurations, "Configuration", lambda _module, made: made.encode()),
}


class Renamed(ast.NodeTransformer):
    """Renames one attribute of one class wherever its module reads it; texts stay as they are."""

    def __init__(self, owner: str, name: str) -> None:
        self.owner, self.name = owner, name

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for field in node.body:
            if node.name == self.owner and isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                field.target.id = self._new(field.target.id)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = self._new(node.attr)
        return self.generic_visit(node)

    def _new(self, name: str) -> str:
        return f"{name}_renamed" if name == self.name else name


@pytest.mark.parametrize("kind", MADE)
def test_a_form_is_these_bytes_and_no_others(kind: str) -> None:
    module, owner, encode = MADE[kind]
    made = encode(module, getattr(module, owner)(*values(kind)))
    assert made.decode() == GOLDEN[kind]["canonical"]
    assert hashlib.sha256(made).hexdigest() == GOLDEN[kind]["sha256"]
    assert rfc8785.dumps(json.loads(made)) == made
    assert json.loads(made)["type"] == GOLDEN[kind]["type"] == f"prunella.{kind}/v1"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FIELDS.items() for name in names])
def test_renaming_a_field_changes_no_byte(kind: str, name: str) -> None:
    module, owner, encode = MADE[kind]
    assert module.__file__
    tree = ast.fix_missing_locations(Renamed(owner, name).visit(ast.parse(Path(module.__file__).read_text())))
    renamed = ModuleType(f"renamed_{kind}_{name}")
    sys.modules[renamed.__name__] = renamed
    try:
        exec(compile(tree, module.__file__, "exec"), renamed.__dict__)  # noqa: S102 - our own module, one name changed
        made = getattr(renamed, owner)(*values(kind))
        assert hasattr(made, f"{name}_renamed")
        assert not hasattr(made, name)
        assert encode(renamed, made).decode() == GOLDEN[kind]["canonical"]
    finally:
        del sys.modules[renamed.__name__]


def test_what_is_signed_is_read_again_from_its_form() -> None:
    assert plan.read_plan(PLAN["canonical"]) == plan.Plan(*values("plan"))
    assert plan.plan_hash(plan.Plan(*values("plan"))) == PLAN["sha256"]
    assert releases.read_manifest(RELEASE["canonical"].encode()) == releases.Manifest(*values("release"))
    read = configurations.read(CONFIGURATION["canonical"].encode())
    assert read == configurations.Configuration(*values("configuration"))


def test_a_form_of_another_type_is_refused() -> None:
    other = PLAN["canonical"].replace("prunella.plan/v1", "prunella.plan/v2")
    with pytest.raises(ValueError, match="v2"):
        plan.read_plan(other)
    for read, form in ((releases.read_manifest, RELEASE), (configurations.read, CONFIGURATION)):
        with pytest.raises(releases.ReleaseError, match="canonical"):
            read(form["canonical"].replace("/v1", "/v2").encode())


def test_a_document_has_one_canonical_form() -> None:
    made = configurations.canonical(DOCUMENT["input"].encode())
    assert made.decode() == DOCUMENT["canonical"]
    assert configurations.digest(DOCUMENT["input"].encode()) == DOCUMENT["sha256"]


def test_what_staging_runs_has_one_digest() -> None:
    manifest = releases.Manifest(*values("release"))
    assert suite(manifest, tuple(SUITE["failing_inputs"]), SUITE["config_digest"]) == SUITE["sha256"]


def test_an_envelope_signs_type_and_payload_together() -> None:
    keys = [bytes.fromhex(key) for key in ENVELOPE["private_keys"]]
    payload = RELEASE["canonical"].encode()
    signed = dsse.pre_authentication(releases.PAYLOAD_TYPE, payload)
    assert hashlib.sha256(signed).hexdigest() == ENVELOPE["signed_sha256"]
    sealed = json.loads(dsse.seal(releases.PAYLOAD_TYPE, payload, keys))
    assert sealed["payloadType"] == ENVELOPE["payload_type"]
    assert base64.b64decode(sealed["payload"]) == payload
    assert sealed["signatures"] == ENVELOPE["signatures"]
