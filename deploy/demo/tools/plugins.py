"""The plugins of one fleet folder, as their supervisors left them on the disk: `<label>/agent/…`.

Rule: a plugin is named by its label or its id and looked up among what is there; a name never becomes a path. A process
is only believed to be a plugin's when its own environment names the plugin's socket.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunella_agent.agent_folder import socket_path


class NoSuchPlugin(LookupError):  # noqa: N818 - says what it means
    """No plugin of this fleet has that label or id."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin's folder."""

    label: str
    folder: Path

    @property
    def state(self) -> dict[str, Any]:
        """What its supervisor last reported; empty when it reported nothing."""
        try:
            fields = json.loads((self.folder / "state").read_text())
        except (OSError, ValueError):
            return {}
        return fields if isinstance(fields, dict) else {}

    @property
    def id(self) -> str:
        """The plugin's id; empty before it was enrolled."""
        return str(self.state.get("plugin", ""))

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "plugin.log"

    @property
    def pid(self) -> int:
        """Its process id; 0 when there is no process that is surely its own."""
        pid = int(self.state.get("pid", 0) or 0)
        return pid if pid and self._owns(pid) else 0

    @property
    def config(self) -> Path:
        """The configuration file its process was started with. Raises FileNotFoundError when there is none."""
        named = environment(self.pid).get("PRUNELLA_CONFIG", "") if self.pid else ""
        if named and Path(named).exists():
            return Path(named)
        stored = sorted(self.folder.glob("configs/*.json"), key=lambda path: path.stat().st_mtime)
        if not stored:
            raise FileNotFoundError(f"{self.label} has no configuration")
        return stored[-1]

    def _owns(self, pid: int) -> bool:
        if sys.platform != "linux":
            return True  # nothing there tells us more than the supervisor does
        return environment(pid).get("PRUNELLA_SOCKET") == str(socket_path(self.folder.resolve()))


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with, as far as we may see it."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in raw.split(b"\0"))
    return {name: value for name, _, value in pairs if name}


def find(fleet: Path, wanted: str) -> Plugin:
    """The plugin with this label or id. Raises NoSuchPlugin, naming those that are there."""
    here = [Plugin(path.parent.name, path) for path in sorted(fleet.glob("*/agent")) if path.is_dir()]
    for plugin in here:
        if wanted and wanted in {plugin.label, plugin.id}:
            return plugin
    known = ", ".join(plugin.label for plugin in here) or "none"
    raise NoSuchPlugin(f"plugin: {wanted[:80]!r} is neither label nor id of a plugin here; there are: {known}")
