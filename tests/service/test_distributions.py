"""What is published runs without the checkout: the agent by itself, and a whole plane that heals a plugin."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import dist
from deploy.local.installation import version
from deploy.local.postgres import Postgres
from deploy.local.state import State

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
INSTALL_SECONDS, HEAL_SECONDS, STOP_SECONDS = 180, 150, 60
# What makes the checkout ready, and distributions out of it: of no use anywhere else.
CHECKOUT_ONLY = {"deploy/bootstrap.py", "deploy/dist.py", "deploy/lock.py", "deploy/overrides.txt"}
PLANE = ("services", "libs", "deploy", "cli", "prunella.v1.ops_pb2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="session")
def wheels() -> Iterator[dict[str, Path]]:
    """Both wheels, built once; in a folder through which the database's user may pass."""
    folder = Path(tempfile.mkdtemp(prefix="prunella-wheels-"))
    folder.chmod(0o711)
    try:
        made = [path for path in dist.build(folder / "dist") if path.suffix == ".whl"]
        yield dict(zip(dist.PROJECTS, made, strict=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Environment:
    """An environment that is empty at first, and a folder to stand in that is nobody's checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        self.here = folder / "here"
        self.state = folder / "state"
        self.here.mkdir(parents=True)
        # What a person has lying around comes before nothing of ours.
        for name in ("services", "libs", "deploy", "cli", "prunella_agent"):
            (self.here / f"{name}.py").write_text("raise ImportError('the folder one stands in is none of ours')\n")
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        self.environ = {**kept, "PATH": f"{self.bin}:{os.defpath}", "PRUNELLA_STATE": str(self.state)}
        self.uv("venv", str(folder / "venv"), "--python", sys.executable)

    def uv(self, *words: str) -> None:
        command = [str(UV), "--no-config", "--quiet", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        assert done.returncode == 0, done.stderr

    def install(self, *wanted: str, wheels: Path) -> None:
        """What the lock names, our own from the wheels."""
        given = ["--find-links", str(wheels), "--constraint", str(ROOT / "constraints.txt")]
        self.uv("pip", "install", "--python", str(self.bin / "python"), *given, *wanted)
        self.uv("pip", "check", "--python", str(self.bin / "python"))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=self.here, env=self.environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def python(self, program: str) -> str:
        done = self.run("python", "-P", "-c", program)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def importable(self, *names: str) -> list[str]:
        """Which of these there are."""
        program = f"""
import importlib
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    print(name)
"""
        return self.python(program).split()

    def processes(self) -> dict[int, str]:
        """Every process that runs from here or was told of it."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
                if os.fsencode(self.folder) in command + (entry / "environ").read_bytes():
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
        return found


@pytest.fixture
def environment(wheels: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Environment]:
    made = Environment(wheels["prunella"].parent.with_name(request.node.name))
    yield made
    state = State(made.state)
    Postgres(state.folder, 0, "", state.logs / "postgresql.log").remove()


def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_every_file_of_the_product_is_in_one_of_the_wheels_and_nothing_else_is(wheels: dict[str, Path]) -> None:
    agent, plane = files(wheels["prunella-agent"]), files(wheels["prunella"])
    assert agent & plane == set()
    folders = ["services", "libs", "deploy", "cli"]
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()} - CHECKOUT_ONLY
    own = {name.removeprefix("libs/agent/") for name in tracked if name.startswith("libs/agent/prunella_agent/")}
    generated = {f"prunella/v1/agent_pb2{end}" for end in (".py", ".pyi", "_grpc.py", "_grpc.pyi")}
    assert agent == own | generated
    others = {path.relative_to(ROOT / "protos/gen").as_posix() for path in (ROOT / "protos/gen").rglob("*_pb2*.py*")}
    others = {name for name in others if "__pycache__" not in name}
    assert plane == {name for name in tracked if not name.startswith("libs/agent/")} | others
    for name in ("services/decider/playbook.toml", "services/queue/strategies.toml", "deploy/demo/playbook.toml"):
        assert name in plane


def test_the_agent_needs_nothing_of_the_plane(wheels: dict[str, Path], environment: Environment) -> None:
    source = wheels["prunella-agent"].parent
    environment.install("prunella-agent", wheels=source)
    program = "from importlib.metadata import distributions as d; print(sorted(one.name for one in d()))"
    assert environment.python(program) == "['prunella-agent']"
    assert environment.python("import prunella_agent as p; p.start(release='1.0.0'); p.webhook(ok=True)") == ""

    environment.install("prunella-agent[supervisor]", wheels=source)
    for words in (("prunella-agent",), ("python", "-P", "-m", "prunella_agent")):
        told = environment.run(*words, "--help")
        assert told.returncode == 0, told.stderr
        assert "--plane" in told.stdout
    assert environment.importable("prunella_agent.supervisor", *PLANE) == ["prunella_agent.supervisor"]
    assert environment.python("from prunella_agent.supervisor import agent_version as v; print(v())") == version()


def test_a_plane_runs_heals_and_stops_where_nothing_else_is(wheels: dict[str, Path], environment: Environment) -> None:
    environment.install("prunella[local]", wheels=wheels["prunella"].parent)
    assert environment.importable("prunella_agent", *PLANE) == ["prunella_agent", *PLANE]
    # Whoever needs the compiler to start would start only where it happens to be.
    assert environment.importable("grpc_tools", "hatchling", "pytest") == []
    assert environment.run("prunella", "--version").stdout.strip() == version()
    away = environment.run("prunella", "status")
    assert (away.returncode, away.stderr.strip()) == (
        3,
        "prunella: no plane is running for this environment; start one with: prunella up",
    )

    said: list[str] = []
    process = subprocess.Popen(
        [str(environment.bin / "prunella"), "up", "--demo"],
        cwd=environment.here, env=environment.environ, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stderr
        # Bounded by the demo itself: each story of it ends by a deadline, with a word.
        for line in process.stderr:
            said.append(line)
            if "why: prunella trace" in line:
                break
        assert any("shop-7   healed in" in line for line in said), "".join(said)
        status = environment.run("prunella", "status")
        assert status.returncode == 0, status.stderr
        assert "1 mitigated" in status.stdout
        running = environment.processes()
        assert len(running) > 8
        # Services are started one by one where the fork server does not come up: slower, and nobody would notice.
        assert any("deploy.local.forkserver" in command for command in running.values()), running

        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=STOP_SECONDS)
        assert process.returncode == 0, "".join(said) + rest
        assert "stopped; the data stays" in rest
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert environment.processes() == {}
