"""Builds the relay's releases from the sources beside this file, signs them, and makes them known to a plane.

Rule: the same sources give the same artifact, byte for byte. An artifact needs nothing but a Python: the telemetry SDK
is packed into it. Every release is signed with both keys of its plane. The packages of simulated agents are the relay
under another name: nobody runs them, but the sandbox does.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import prunella_agent
from libs.common.errors import Conflict
from prunella.v1 import patcher_pb2, patcher_pb2_grpc
from prunella_agent import configurations, releases

PACKAGE = "relay"
# A new number for code that is known.
RENAMED = {"2.0.0": "1.2.3"}
VERSIONS = ("1.1.0", "1.2.0", "1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.3.0")
SOURCES = Path(__file__).resolve().parent / PACKAGE
SDK_FILES = ("__init__.py", "sdk.py", "counters.py", "error_groups.py", "text.py")
ENTRYPOINT = ("python", "-m", "relay.release")
PROBE = ("python", "-m", "relay.common.probe")
SMOKE = ("python", "-m", "relay.release.smoke")
PUBLISH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Release:
    """A signed release, ready to be published or installed."""

    version: str
    digest: str
    artifact: bytes
    envelope: bytes


@cache
def build(version: str, package: str = PACKAGE) -> bytes:
    """The artifact of a version. Raises KeyError for one that has no sources."""
    code = RENAMED.get(version, version)
    if code not in VERSIONS:
        raise KeyError(version)
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        folder, ignore = Path(name), shutil.ignore_patterns("__pycache__")
        (folder / PACKAGE).mkdir()
        shutil.copy(SOURCES / "__init__.py", folder / PACKAGE)
        shutil.copytree(SOURCES / "common", folder / PACKAGE / "common", ignore=ignore)
        shutil.copytree(SOURCES / f"v{code.replace('.', '_')}", folder / PACKAGE / "release", ignore=ignore)
        if (package, version) != (PACKAGE, code):
            # Releases that differ in name differ in digest, so that each is staged for itself.
            (folder / PACKAGE / "NAME").write_text(f"{package} {version}\n")
        sdk = Path(prunella_agent.__file__).parent
        (folder / "prunella_agent").mkdir()
        for file in SDK_FILES:
            shutil.copy(sdk / file, folder / "prunella_agent")
        shutil.copytree(sdk / "fingerprint", folder / "prunella_agent" / "fingerprint", ignore=ignore)
        return releases.build_archive(folder)


def release(version: str, private_keys: Sequence[bytes], package: str = PACKAGE) -> Release:
    """A version, built and signed."""
    artifact = build(version, package)
    manifest = releases.describe(
        artifact, package=package, version=version, entrypoint=ENTRYPOINT, probe=PROBE, smoke=SMOKE
    )
    return Release(version, manifest.digest, artifact, releases.sign(manifest, private_keys))


async def publish(
    patcher: patcher_pb2_grpc.PatcherServiceAsyncStub,
    private_keys: Sequence[bytes],
    versions: Sequence[str] = VERSIONS,
    package: str = PACKAGE,
) -> None:
    """Makes versions known to a patcher; what it knows already stays as it is."""
    for version in versions:
        made = release(version, private_keys, package)
        request = patcher_pb2.PublishReleaseRequest(
            request_id=str(uuid.uuid4()), envelope=made.envelope, artifact=made.artifact
        )
        # A plane that was here before this checkout changed keeps the build it knows.
        with suppress(Conflict):
            await patcher.PublishRelease(request, timeout=PUBLISH_SECONDS)


async def configure(
    patcher: patcher_pb2_grpc.PatcherServiceAsyncStub,
    private_keys: Sequence[bytes],
    version: str,
    values: Mapping[str, object],
    plugin: str,
) -> str:
    """Makes a configuration for one relay known; returns its digest. Raises Conflict when the version is another."""
    document = json.dumps(values).encode()
    made = configurations.describe(document, package=PACKAGE, version=version, plugin=plugin)
    request = patcher_pb2.PublishConfigurationRequest(
        request_id=str(uuid.uuid4()), envelope=configurations.sign(made, private_keys), document=document
    )
    await patcher.PublishConfiguration(request, timeout=PUBLISH_SECONDS)
    return made.digest
