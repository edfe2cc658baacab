"""Checkpoints are what other tools of transparency logs read, and nothing else passes for one."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from libs.common.errors import Invalid
from services.ops.audit import note
from services.ops.audit.note import Signer

ROOT = hashlib.sha256(b"a root").digest()
SIGNER = Signer.of("prunella/audit/0a1b", bytes(range(32)))
OTHER = Signer.of("prunella/audit/0a1b", bytes(range(1, 33)))
NOTE = SIGNER.sign(42, ROOT)
# The example of golang.org/x/mod/sumdb/note, an independent implementation.
PEER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PEER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PEER_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


def test_a_checkpoint_is_written_line_by_line_as_c2sp_says() -> None:
    lines = NOTE.split("\n")
    assert lines[:4] == ["prunella/audit/0a1b", "42", base64.b64encode(ROOT).decode(), ""]
    mark, name, signature = lines[4].split(" ")
    raw = base64.b64decode(signature)
    assert (mark, name, lines[5:]) == ("—", "prunella/audit/0a1b", [""])
    ident = hashlib.sha256(b"prunella/audit/0a1b\n\x01" + SIGNER.key.public).digest()[:4]
    assert raw[:4] == ident and len(raw) == 4 + 64
    Ed25519PublicKey.from_public_bytes(SIGNER.key.public).verify(raw[4:], "\n".join(lines[:3]).encode() + b"\n")


def test_the_example_of_the_go_implementation_verifies() -> None:
    key = note.read_key(PEER_KEY)
    assert str(key) == PEER_KEY
    raw = base64.b64decode(PEER_SIGNATURE)
    assert raw[:4] == key.id
    Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], PEER_TEXT.encode())


def test_a_checkpoint_is_read_back_and_its_signer_known() -> None:
    read = note.read(NOTE)
    assert (read.origin, read.size, read.root) == ("prunella/audit/0a1b", 42, ROOT)
    assert read.signed_by([OTHER.key, SIGNER.key]) == SIGNER.key
    assert read.signed_by([OTHER.key]) is None


def test_lines_that_others_added_are_signed_too_and_their_signatures_do_no_harm() -> None:
    text, _, signature = NOTE.partition("\n\n")
    witnessed = f"{text}\n\n— witness.example/w {base64.b64encode(b'1234' + bytes(64)).decode()}\n{signature}"
    assert note.read(witnessed).signed_by([SIGNER.key]) == SIGNER.key
    extended = f"{text}\nan extension line\n\n{signature}"
    assert note.read(extended).signed_by([SIGNER.key]) is None


def test_any_other_size_or_root_has_no_valid_signature() -> None:
    assert note.read(NOTE.replace("42", "43", 1)).signed_by([SIGNER.key]) is None
    other = base64.b64encode(bytes(32)).decode()
    assert note.read(NOTE.replace(base64.b64encode(ROOT).decode(), other)).signed_by([SIGNER.key]) is None


def test_a_key_that_signs_for_another_name_is_not_the_logs() -> None:
    stranger = Signer.of("somebody/else", bytes(range(32)))
    text = NOTE.partition("\n\n")[0]
    raw = stranger.key.id + stranger.private.sign(f"{text}\n".encode())
    forged = f"{text}\n\n— somebody/else {base64.b64encode(raw).decode()}\n"
    assert note.read(forged).signed_by([stranger.key]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n42\n",
        NOTE.rstrip("\n"),
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("42", "042", 1),
        NOTE.replace("42", "-42", 1),
        NOTE.replace("42", "٤٢", 1),
        NOTE.replace("— ", "- "),
        NOTE.replace(base64.b64encode(ROOT).decode(), "AAAA"),
        NOTE + "\n",
        "x" * 20_000 + NOTE,
    ],
    ids=["empty", "no signature", "cut", "no gap", "zero", "negative", "digits", "dash", "root", "tail", "long"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="no signed checkpoint"):
        note.read(text)


@pytest.mark.parametrize("text", ["", "name", "a+b+c", "a b" + PEER_KEY[12:], PEER_KEY.replace("c74f20a3", "00000000")])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        note.read_key(text)
