"""Results of staging, kept by artifact, suite and environment."""

import json
from dataclasses import asdict, replace

from libs.common.database import Transaction
from services.patcher.attempt import Staged

GET = """
SELECT result FROM patcher.staging_cache WHERE digest = :digest AND suite = :suite AND environment = :environment
"""
PUT = """
INSERT INTO patcher.staging_cache (digest, suite, environment, result, create_time)
VALUES (:digest, :suite, :environment, CAST(:result AS jsonb), :now) ON CONFLICT DO NOTHING
"""


def read(values: dict[str, object]) -> Staged:
    """A result from its stored form."""
    failures = values["failures"]
    assert isinstance(failures, list | tuple)
    return Staged(**values | {"failures": tuple(failures)})  # type: ignore[arg-type]


async def get(tx: Transaction, digest: str, suite: str, environment: str) -> Staged | None:
    """What staging said about the same artifact, suite and environment."""
    found = await tx.value(GET, digest=digest, suite=suite, environment=environment)
    return replace(read(found), cached=True) if found else None


async def put(tx: Transaction, digest: str, suite: str, environment: str, result: Staged) -> None:
    """Keeps a result."""
    text = json.dumps(asdict(result))
    await tx.run(PUT, digest=digest, suite=suite, environment=environment, result=text, now=tx.now)
