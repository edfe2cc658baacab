"""Staging: a release proves itself in a sandbox before it may come near a plugin.

Rule: the sandbox starts the release, waits until its own probe is content, and runs its smoke tests with the inputs
that failed in the field. A result counts only when it carries the request's nonce; no tests, no answer, or two
answers are failures. Nothing of a release runs below the isolation that the policy asks for, and its time counts from
the start of a run: waiting for a sandbox is nobody's failure.
"""

import hashlib
import platform
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import rfc8785

from prunella_agent.releases import Manifest
from services.patcher.attempt import Staged
from services.patcher.policy import Isolation

# Raised when what the sandbox does changes, so that older results no longer count.
SUITE_TYPE = "prunella.staging_suite/v1"


@dataclass(frozen=True)
class Request:
    """What is to be proven: a release, with `config` (canonical JSON) where that is what is new.

    `seconds` bounds everything; the nonce binds the result to this request.
    """

    nonce: str
    manifest: Manifest
    artifact: bytes
    failing_inputs: tuple[str, ...]
    seconds: float
    attempt: str = ""
    plugin: str = ""
    merchant: str = ""
    config: bytes = b""
    min_isolation: Isolation = Isolation.NONE


@dataclass(frozen=True)
class SandboxHost:
    """What a sandbox can give a release, found out once; `missing` is what it lacks, in words, with the remedy."""

    isolation: Isolation
    where: str
    user: str = ""
    network: str = ""
    files: str = ""
    missing: tuple[str, ...] = ()
    remedy: str = ""

    def lacks(self, least: Isolation) -> str:
        """Why it is not enough for a policy, with what to do; empty when it is."""
        if self.isolation >= least:
            return ""
        lacking = ", ".join(self.missing) or "full isolation"
        return (
            f"{self.where} gives isolation {self.isolation.word} and the policy asks for {least.word}: it lacks "
            f"{lacking}; {self.remedy} or lower it: prunella policy set min_isolation={self.isolation.word}"
        )


class StagingLostError(Exception):
    """The runner gave no usable result; trying again may help."""


class Runner(Protocol):
    """Something that can prove a release."""

    @property
    def environment(self) -> str:
        """What results are comparable under, beside the isolation."""

    async def host(self) -> SandboxHost:
        """What it can give a release."""

    def turn(self) -> AbstractAsyncContextManager[object]:
        """Waits for a free sandbox, in the order of asking; nothing counts as running before."""

    async def run(self, request: Request) -> Staged:
        """The result. Raises StagingLostError when there is none."""


def suite(manifest: Manifest, failing_inputs: tuple[str, ...], config: str = "") -> str:
    """A digest of everything that is run against an artifact; `config` is the digest of its configuration."""
    form = {
        "type": SUITE_TYPE,
        "entrypoint": list(manifest.entrypoint),
        "probe": list(manifest.probe),
        "smoke": list(manifest.smoke),
        "failing_inputs": sorted(failing_inputs),
        "config_digest": config,
    }
    return hashlib.sha256(rfc8785.dumps(form)).hexdigest()


def local_environment() -> str:
    """What a local result depends on beside artifact and suite."""
    return f"local {sys.implementation.name} {platform.python_version()} {platform.system()} {platform.machine()}"
