"""What the doors of queue are given."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.bus import Bus
from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.settings import ServiceSettings
from libs.common.telemetry import Telemetry


@dataclass
class Doors:
    """The service's own means; queue asks no sibling."""

    database: Database
    bus: Bus
    clock: Clock
    settings: ServiceSettings
    telemetry: Telemetry
