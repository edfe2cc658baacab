"""What leaves the machine in a bundle holds no secret, known or guessed, however it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.redaction import Redactor, in_environment, in_folder, in_values
from libs.common.redaction import REDACTED, is_secret, redacted_environment

SECRETS = st.text(st.characters(categories=("L", "N", "P")), min_size=6, max_size=60).filter(
    lambda text: text.strip() == text and text not in REDACTED
)


@given(SECRETS, st.text(max_size=40), st.text(max_size=40))
def test_what_is_known_is_taken_out_wherever_it_stands(secret: str, before: str, after: str) -> None:
    said = Redactor([secret]).text(f"{before}\n{secret}\n{after} {json.dumps({'x': secret})}")
    assert secret not in said.replace(REDACTED, "")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql://ops:hunter22@127.0.0.1:5432/prunella", "hunter22"),
        ("cannot connect to nats://services:n4tsn4ts@10.0.0.1:4222", "n4tsn4ts"),
        ("authorization: Service operator:0123456789abcdef0123", "0123456789abcdef0123"),
        ("Authorization: Bearer abc.def-ghi_jkl012345", "abc.def-ghi_jkl012345"),
        ("metadata Plugin 01a1fe1e-9852-763d-8bbb-43a3238f887d:c2VjcmV0c2VjcmV0", "c2VjcmV0c2VjcmV0"),
        ("signed with whsec_c2VjcmV0", "c2VjcmV0"),
        ("POST https://hooks.slack.com/services/T0/B0/XYZ failed", "T0/B0/XYZ"),
        ("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ\n-----END PRIVATE KEY-----", "MC4CAQAwBQ"),
        ('{"model_token": "sk-abcdef123456"}', "sk-abcdef123456"),
        ("smtp password=correct-horse", "correct-horse"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_unknown(text: str, secret: str) -> None:
    said = Redactor().text(text)
    assert secret not in said
    assert REDACTED in said


@pytest.mark.parametrize(
    "text",
    [
        "shop-7 broke: webhook_fail_rate 0.64 > 0.30 over 14 attempts",
        'prunella_rpc_seconds_count{code="OK",method="ListPlugins",service="ingest"} 12.0',
        "http://127.0.0.1:9005/v1/traces",
        "Service ops is serving",
    ],
)
def test_what_is_innocent_stays(text: str) -> None:
    assert Redactor(["another-secret"]).text(text) == text


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("PRUNELLA_KEY", True),
        ("OPS_AUDIT_KEY", True),
        ("DECIDER_SIRA_TOKEN", True),
        ("release-key-1", True),
        ("PATCHER_RELEASE_KEYS", False),
        ("INGEST_BEAT_SECONDS", False),
        ("PRUNELLA_LISTEN", False),
    ],
)
def test_names_say_what_is_secret(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


def test_of_an_environment_ours_is_shown_without_secrets() -> None:
    environ = {
        "HOME": "/home/ada",
        "DATABASE_URL": "postgresql://ops:hunter22@db/prunella",
        "PRUNELLA_KEY": "ab" * 32,
        "OPS_AUDIT_KEY": "",
        "INGEST_BEAT_SECONDS": "1",
        "PATCHER_RELEASE_KEYS": "cd" * 32,
    }
    assert redacted_environment(environ) == {
        "DATABASE_URL": f"postgresql://{REDACTED}@db/prunella",
        "INGEST_BEAT_SECONDS": "1",
        "OPS_AUDIT_KEY": "",
        "PATCHER_RELEASE_KEYS": "cd" * 32,
        "PRUNELLA_KEY": REDACTED,
    }


def test_secrets_are_learned_from_variables_files_and_addresses(tmp_path: Path) -> None:
    kept = tmp_path / "token.txt"
    kept.write_text("from-a-file\n")
    (tmp_path / "kept.json").write_text(json.dumps({"ports": {"ops": 1}, "secrets": {"roles": "role-secret"}}))
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "audit.key").write_text("audit-private")
    learned = {
        *in_environment({"A_TOKEN_FILE": str(kept), "DATABASE_URL": "postgresql://a:p%40ssword@h/d", "X": "plain"}),
        *in_folder(tmp_path),
        *in_values({"deep": [{"credential": {"id": "plugin-secret"}}], "name": "no-secret"}),
    }
    wanted = {"from-a-file", "p%40ssword", "p@ssword", "role-secret", "audit-private", "plugin-secret"}
    assert wanted <= learned
    assert not learned & {"plain", "no-secret"}
