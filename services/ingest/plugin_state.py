"""What is known of a plugin from its beats: one row, written with every beat."""

from __future__ import annotations

from dataclasses import dataclass

from services.ingest.beat import Health
from services.ingest.windows import newest_first

# Quiet windows with attempts after which earlier failures can no longer make a rate.
SETTLED = 8


@dataclass(slots=True)
class PluginState:
    """Times in Unix seconds of ingest's clock; counters as the last beat had them, cumulative since boot."""

    plugin: str
    # Rises with every write; a write names the version it was computed from.
    version: int = 0
    active: bool = True
    session_epoch: int = 0
    # The current boot first; `sequence` is the highest of it, `former_sequences` those of the others (`boots`).
    boot_ids: tuple[str, ...] = ()
    sequence: int = 0
    former_sequences: tuple[int, ...] = ()
    boot_time: float = 0.0
    boot_epoch: int = 0
    boot_returns: int = 0
    errors: int = 0
    webhook_attempts: int = 0
    webhook_failures: int = 0
    signature_failures: int = 0
    last_beat_time: float = 0.0
    beats: int = 0
    health: Health = Health.UNSPECIFIED
    release: str = ""
    generation: int = 0
    digest: str = ""
    # Types of its active incidents, a bit each.
    open_types: int = 0
    # Windows that began earlier do not count: the last apply or incident close.
    count_from_time: float = 0.0
    # As a plain HTTP client reported it last, and as it stood at count_from_time.
    errors_last_24h: int = 0
    errors_last_24h_base: int = 0
    polling: bool = False
    away: bool = False
    # There may be commands to deliver, or the final receipt of a generation is still to come.
    commands_pending: bool = False
    windows: bytes = b""
    # Digest of the configuration it should have; empty when none is known.
    expected_config_digest: str = ""
    # Seconds by which its own clock was ahead of ours at the last beat that named a time; shown, and nothing else.
    clock_skew: float | None = None
    # The bare webhook_fail_rates it reported last (`rate_reports`).
    reported_rates: bytes = b""
    # What is usual for it, with the counters of the last sample (`anomaly`).
    baseline: bytes = b""
    # Not stored: quiet windows with attempts since the last one in which something went wrong.
    quiet_windows: int = 0
    # Not stored: a hash of the attributes that were written last.
    attributes_hash: int = 0
    # Not stored: when it was sampled last, whether it was like itself then (None: nothing could be compared), and
    # whether its baseline is still to be written.
    sample_time: float = 0.0
    like_itself: bool | None = None
    baseline_changed: bool = False


def quiet_windows(windows: bytes) -> int:
    """How many quiet windows with attempts came since something went wrong; no more than matter are counted."""
    count = 0
    for window in newest_first(windows):
        if not window.quiet:
            return count
        count += bool(window.attempts)
        if count > SETTLED:
            return count
    return SETTLED + 1
