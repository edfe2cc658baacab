"""How processes live: parts, loops, sweeps, and the service they make together."""

from libs.common.runtime.loops import Loop, Sweep, Sweeps
from libs.common.runtime.parts import Part, die_with_parent, run, start_parts, stop_parts
from libs.common.runtime.service import Service, main

__all__ = [
    "Loop",
    "Part",
    "Service",
    "Sweep",
    "Sweeps",
    "die_with_parent",
    "main",
    "run",
    "start_parts",
    "stop_parts",
]
