"""The options of the supervisor's command line.

Rule: secrets may also come from the environment (PRUNELLA_TOKEN), because other users can read command lines.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_ABSENCE = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Options:
    """One supervisor's options. `probe_seconds` is the pause between probes of a healthy plugin; `back_within` seconds
    is how long it may be gone when it was asked to end, 0 when its goodbye names no time."""

    plane: str
    folder: Path
    package: str
    token: str = field(default="", repr=False)
    merchant: str = ""
    archive: Path | None = None
    envelope: Path | None = None
    reinstall: bool = False
    config: Path | None = None
    port: int = 0
    probe_seconds: float = 5.0
    back_within: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    with_parent: bool = False


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options of a command line; exits with a usage line when they are wrong."""
    parser = argparse.ArgumentParser(prog="prunella-agent", description="Runs one plugin and heals it with the plane.")
    parser.add_argument("--plane", required=True, metavar="HOST:PORT", help="where agents reach ingest")
    parser.add_argument("--folder", required=True, type=Path, help="the agent's own folder, kept between runs")
    parser.add_argument("--package", required=True, help="the package this plugin is an installation of")
    parser.add_argument("--token", default=os.environ.get("PRUNELLA_TOKEN", ""), help="one-time enrolment token")
    parser.add_argument("--merchant", default="", help="whose installation it is")
    parser.add_argument("--release-archive", dest="archive", type=Path, help="the release to begin with (.tar.gz)")
    parser.add_argument("--release-envelope", dest="envelope", type=Path, help="default: <archive>.dsse")
    parser.add_argument("--reinstall", action="store_true", help="install the archive although a release is there")
    parser.add_argument("--config", type=Path, help="configuration of the plugin (JSON object)")
    parser.add_argument("--port", type=int, default=0, help="the plugin's port; default: a free one, then always that")
    parser.add_argument("--probe-seconds", type=float, default=5.0, help="pause between probes")
    parser.add_argument("--back-within", type=float, default=0.0, help="seconds a planned stop may last; it says so")
    parser.add_argument("--environment", action="append", default=[], metavar="NAME=VALUE", help="reported in beats")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent process ends")
    found = vars(parser.parse_args(arguments))
    pairs = [pair.partition("=") for pair in found.pop("environment")]
    if not 0 <= found["back_within"] <= LONGEST_ABSENCE:
        parser.error(f"--back-within must be 0 to {LONGEST_ABSENCE:.0f} seconds")
    if found["archive"] is None and found["reinstall"]:
        parser.error("--reinstall needs --release-archive")
    about = {
        "runtime": f"python {platform.python_version()}",
        "platform": f"{platform.system().lower()} {platform.machine()}",
    }
    return Options(**found, environment=about | {name: value for name, _, value in pairs})
