"""The wire is a promise: whatever was released can still be read, and `buf breaking` says when it could not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
BUF = Path(sys.executable).with_name("buf")


def buf(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"BUF_CACHE_DIR": str(tmp_path / "cache"), "PATH": "", "HOME": str(tmp_path)}
    return subprocess.run([str(BUF), *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A descriptor of the protos as they are, made as `make released` makes it."""
    descriptor = tmp_path / "released.binpb"
    made = buf(tmp_path, "build", str(PROTOS), "-o", str(descriptor))
    assert made.returncode == 0, made.stderr
    return descriptor


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """The protos of the next release."""
    return Path(shutil.copytree(PROTOS, tmp_path / "protos", ignore=shutil.ignore_patterns("gen", "*.binpb")))


def edit(protos: Path, pattern: str, replacement: str) -> None:
    path = protos / "prunella/v1/agent.proto"
    text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(text)


def test_the_same_protos_break_nothing(tmp_path: Path, released: Path, protos: Path) -> None:
    assert buf(tmp_path, "breaking", str(protos), "--against", str(released)).returncode == 0


def test_a_new_field_breaks_nothing(tmp_path: Path, released: Path, protos: Path) -> None:
    edit(protos, r"^(message Goodbye \{)$", r"\1\n  string song = 1000;")
    assert buf(tmp_path, "breaking", str(protos), "--against", str(released)).returncode == 0


@pytest.mark.parametrize(
    ("pattern", "replacement", "says"),
    [
        (r"^  string boot_id = \d+;\n", "", "was deleted"),
        (r"^  string boot_id = (\d+);", r"  int64 boot_id = \1;", "changed type"),
        (r"^  string boot_id = (\d+);", r"  string start_id = \1;", "changed name"),
    ],
    ids=["removed", "another type", "another name"],
)
def test_a_field_that_is_not_what_it_was_is_caught(
    tmp_path: Path, released: Path, protos: Path, pattern: str, replacement: str, says: str
) -> None:
    edit(protos, pattern, replacement)
    checked = buf(tmp_path, "breaking", str(protos), "--against", str(released))
    assert checked.returncode != 0
    assert says in checked.stdout + checked.stderr
