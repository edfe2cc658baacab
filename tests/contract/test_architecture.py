"""The shape of the tree: who may import whom, and how large a room may grow (ARCHITECTURE.md, "Rooms")."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("ingest", "decider", "patcher", "queue", "ops")
# A file or folder of a service that is not one of these rooms is a heart.
ROOMS = {
    "store": {"sqlalchemy", "libs.common"},
    "wire": {
        "prunella.v1",
        "google",
        "libs.common",
        "prunella_agent.releases",
        "prunella_agent.fingerprint",
        "prunella_agent.requirements",
    },
    "handlers": {"prunella.v1", "grpc", "google", "libs.common", "opentelemetry", "prunella_agent.releases"},
    "gateway": {"prunella.v1", "grpc", "google", "libs.common", "opentelemetry"},
    "reactions": {"prunella.v1", "libs.common", "opentelemetry"},
    "sweeps": {"prunella.v1", "libs.common", "opentelemetry"},
    "forward": {"prunella.v1", "grpc", "google", "libs.common"},
    "web": {"prunella.v1", "grpc", "google", "starlette", "msgspec", "libs.common"},
    "errands": {"prunella.v1", "grpc", "libs.common", "httpx2", "msgspec"},
    "channels": {"libs.common", "httpx2", "aiosmtplib", "cryptography"},
    "staging": {"libs.common", "httpx2", "msgspec", "prunella_agent", "rfc8785"},
    "http": {"prunella.v1", "starlette", "msgspec", "libs.common"},
    "receiver": {"opentelemetry", "starlette", "uvicorn", "libs.common", "prometheus_client"},
    "context": {"prunella.v1", "grpc", "libs.common", "opentelemetry"},
    "operations": {"prunella.v1", "grpc", "libs.common", "opentelemetry"},
    "service": {"prunella.v1", "grpc", "libs.common", "opentelemetry"},
    "worker": {
        "prunella.v1",
        "grpc",
        "google",
        "libs.common",
        "mcp",
        "mcp_types",
        "anyio",
        "httpx2",
        "pydantic",
        "structlog",
        "prunella_agent.plugin_process",
    },
    "__main__": {"libs.common"},
}
# Pure themselves: no clock, no chance, nothing outside.
HEART = {f"libs.common.{name}" for name in ("errors", "names", "beta_posterior", "text", "toml_tables")} | {
    # How versions are ordered and requirements are met is one rule for plane and agent.
    "prunella_agent.versions",
    "prunella_agent.requirements",
}
# What one file alone may import besides. When a cron expression matches, what form JSON has and whether a signature is
# valid is arithmetic, and the protocol of health checks is everybody's: none of it is ours to write again.
ALSO = {
    "services/patcher/freeze.py": {"cronsim"},
    "services/queue/errands/model_client.py": {"openai"},
    "services/patcher/approvals/plan.py": {"rfc8785"},
    "services/ops/audit/note.py": {"cryptography"},
    "services/ops/errands/uptime_probes.py": {"grpc_health"},
}
FILE_CEILING = 400
FILE_MEDIAN = 100
FILE_P95 = 250
FUNCTION_CEILING = 40


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.exists()] or [p for p in ROOT.rglob("*.py") if ".venv" not in p.parts]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from services.patcher import store` names a room as well as a package.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room(parts: tuple[str, ...]) -> str:
    return Path(parts[2]).stem if len(parts) > 2 else "__init__"


def allowed(name: str, prefixes: set[str]) -> bool:
    top = name.split(".", maxsplit=1)[0]
    return top in sys.stdlib_module_names or any(name == p or name.startswith(p + ".") for p in prefixes)


def complaint(path: Path, name: str) -> str:
    """Why this import is forbidden here; empty when it is not."""
    parts = path.relative_to(ROOT).parts
    top = name.split(".", maxsplit=1)[0]
    if parts[0] == "libs" and top in {"services", "deploy", "cli", "tests"}:
        return "libs know nothing of who uses them"
    if parts[:2] == ("libs", "agent") and name.startswith("libs."):
        return "the agent is a distribution of its own"
    if parts[0] == "deploy" and top == "services":
        return "deploy only names services"
    if parts[0] != "services" or "migrations" in parts or len(parts) < 3:
        return ""
    own = f"services.{parts[1]}"
    if top == "services":
        if not name.startswith(own + "."):
            return "services meet only in the protos and on the bus"
        target = name.split(".")[2]
        if room(parts) == "worker" and target != "worker":
            return "the worker is a client like any other"
        heart = room(parts) not in ROOMS
        return "a heart imports hearts alone" if heart and target in ROOMS else ""
    if room(parts) == "__init__":
        return ""
    permitted = ROOMS.get(room(parts), HEART) | ALSO.get("/".join(parts), set())
    return "" if allowed(name, permitted) else f"{room(parts)} may import {sorted(permitted)}"


def test_every_import_keeps_to_its_room() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}: {why}"
        for path in tracked()
        for line, name in imports(path)
        if (why := complaint(path, name))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("services/ingest/detection.py", "sqlalchemy.text"),
        ("services/ingest/detection.py", "services.ingest.store.plugins"),
        ("services/ingest/handlers.py", "services.patcher.policy"),
        ("services/decider/store.py", "prunella.v1.events_pb2"),
        ("libs/common/bus/consumer.py", "services.ingest.detection"),
        ("libs/common/clock.py", "deploy.local.testing"),
        ("libs/common/clock.py", "tests.deaf"),
        ("libs/agent/prunella_agent/sdk.py", "cli.main"),
        ("libs/agent/prunella_agent/session.py", "libs.common.rpc"),
        ("deploy/local/plane.py", "services.ingest.service"),
        ("services/queue/worker/worker_loop.py", "services.queue.store.tasks"),
    ],
)
def test_a_planted_breach_is_found(place: str, name: str) -> None:
    assert complaint(ROOT / place, name)


def test_no_file_and_no_function_outgrows_its_idea() -> None:
    wrong = []
    for path in tracked():
        text = path.read_text()
        name = path.relative_to(ROOT)
        if text.count("\n") > FILE_CEILING:
            wrong.append(f"{name}: {text.count(chr(10))} lines")
        if name.parts[0] in {"tests", "protos"}:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_CEILING:
                    wrong.append(f"{name}:{node.lineno} {node.name}: {length} lines")
    assert not wrong, "\n".join(wrong)


def test_files_stay_small_as_a_whole() -> None:
    product = [path for path in tracked() if path.relative_to(ROOT).parts[0] not in {"tests", "protos"}]
    sizes = sorted(path.read_text().count("\n") for path in product)
    assert statistics.median(sizes) <= FILE_MEDIAN
    assert sizes[len(sizes) * 95 // 100] <= FILE_P95


def module(path: Path) -> str:
    """What a file is imported as."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[2:] if parts[:2] == ("libs", "agent") else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports, those for type checking included."""
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        found[name] = set()
        for _, imported in imports(path):
            while imported and imported not in files:
                imported = imported.rpartition(".")[0]
            found[name] |= {imported} - {"", name}
    return found


def ring(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other, in order; empty when there are none."""
    done: set[str] = set()
    for start in sorted(edges):
        way, ahead = [start], [iter(sorted(edges[start] - done))]
        while way:
            following = next(ahead[-1], None)
            if following is None:
                ahead.pop()
                done.add(way.pop())
            elif following in way:
                return [*way[way.index(following) :], following]
            elif following not in done:
                way.append(following)
                ahead.append(iter(sorted(edges[following])))
    return []


def test_no_files_import_each_other() -> None:
    assert ring(graph({module(path): path for path in tracked()})) == []


def test_a_planted_ring_is_found(tmp_path: Path) -> None:
    texts = {
        "a": "from b import something\n",
        "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from c.d import D\n",
        "c.d": "def late():\n    import a\n",
        "e": "import a, b\n",
    }
    files = {name: tmp_path / f"{name}.py" for name in texts}
    for name, path in files.items():
        path.write_text(texts[name])
    assert ring(graph(files)) == ["a", "b", "c.d", "a"]
    files["c.d"].write_text("import json\n")
    assert ring(graph(files)) == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "manager", "misc", "base", "part2"}
    assert not [path for path in tracked() if path.stem in empty]


def test_every_file_says_its_rule_first() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not silent, "\n".join(silent)
