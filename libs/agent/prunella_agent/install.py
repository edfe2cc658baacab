"""Puts a release into a slot by hand: at the first start, or because a person asks for it.

Rule: by hand is no way around the keys. The envelope lies beside the archive and every pinned key has signed it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from prunella_agent import releases
from prunella_agent.credential import Credential, write_file
from prunella_agent.journal import Journal
from prunella_agent.slots import NAMES, Slots
from prunella_agent.state import Install


def envelope_path(archive: Path) -> Path:
    """Where the envelope of an archive lies when nobody says otherwise: the archive's name and `.dsse`."""
    return archive.with_name(archive.name + ".dsse")


def save_config(configs: Path, config: Path | None) -> str:
    """Copies a configuration (JSON; `{}` when there is none) to its place; returns its name there.

    Raises ValueError when it is not JSON.
    """
    content = config.read_bytes() if config else b"{}"
    json.loads(content)
    name = f"{hashlib.sha256(content).hexdigest()}.json"
    configs.mkdir(exist_ok=True)
    write_file(configs / name, content)
    return name


def install(
    journal: Journal,
    slots: Slots,
    credential: Credential,
    *,
    archive: Path,
    envelope: Path,
    package: str,
    config: str,
    environment: Mapping[str, str],
) -> Install:
    """Verifies a release and makes it the running one, under the generation that runs now. Raises ReleaseError."""
    manifest = releases.verify(envelope.read_bytes(), credential.release_keys)
    if manifest.package != package:
        raise releases.ReleaseError(f"the archive is of package {manifest.package}", "RELEASE_MISMATCH")
    releases.check_requirements(manifest, environment)
    artifact = archive.read_bytes()
    releases.check_artifact(manifest, artifact)
    running = journal.state.running
    slot = slots.other(running.slot) if running else NAMES[0]
    slots.stage(slot, artifact)
    journal.write("SLOT_CLEARED", slot=slot)
    slots.fill(slot)
    fresh = Install(
        slot=slot,
        release=manifest.version,
        digest=manifest.digest,
        generation=running.generation if running else 0,
        entrypoint=manifest.entrypoint,
        probe=manifest.probe,
        config=config,
        requires=dict(manifest.requires),
    )
    journal.write("INSTALLED", install=asdict(fresh))
    return fresh
