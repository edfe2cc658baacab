"""Beats that the plane has not yet acknowledged.

Rule: at most 512 beats are kept. Because counters are cumulative, a beat in the middle of a stretch in which nothing
changed but counters can go: the next one tells the same. The first and the last beat of every stretch (same health,
generation, release, digest, configuration, conditions) stay, as long as there are not 512 stretches.
"""

from __future__ import annotations

from prunella.v1 import agent_pb2 as pb

LIMIT = 512


class Spool:
    """Beats in the order of their sequence; remembers which of them went out on the present stream."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._beats: list[pb.Beat] = []
        self._sent = 0
        self._scanned = 1

    def __len__(self) -> int:
        return len(self._beats)

    @property
    def unacknowledged(self) -> int:
        """How many beats went out on the present stream and wait for their acknowledgement."""
        return self._sent

    def sent(self, sequence: int) -> bool:
        """Whether everything up to this sequence went out on the present stream."""
        return self._sent >= len(self._beats) or self._beats[self._sent].sequence > sequence

    def add(self, beat: pb.Beat) -> None:
        """Keeps one more beat; lets one go when there are too many."""
        self._beats.append(beat)
        if len(self._beats) > self._limit:
            self._evict()

    def next(self) -> pb.Beat | None:
        """The next beat to send on the present stream, marked as sent."""
        if self._sent >= len(self._beats):
            return None
        self._sent += 1
        return self._beats[self._sent - 1]

    def acknowledge(self, sequence: int) -> int:
        """Forgets everything up to this sequence; returns how many beats that were."""
        count = 0
        while count < len(self._beats) and self._beats[count].sequence <= sequence:
            count += 1
        self._remove(0, count)
        return count

    def drop(self, sequence: int) -> bool:
        """Forgets one beat that will never be accepted."""
        for index, beat in enumerate(self._beats):
            if beat.sequence == sequence:
                self._remove(index, 1)
                return True
        return False

    def rewind(self) -> None:
        """A new stream: everything goes out again."""
        self._sent = 0

    def _remove(self, index: int, count: int) -> None:
        del self._beats[index : index + count]
        self._sent -= min(max(self._sent - index, 0), count)
        self._scanned = 1

    def _evict(self) -> None:
        for index in range(self._scanned, len(self._beats) - 1):
            before, beat, after = self._beats[index - 1 : index + 2]
            if merge_key(before) == merge_key(beat) == merge_key(after):
                if beat.failing_inputs and not after.failing_inputs:
                    after.failing_inputs.extend(beat.failing_inputs)
                self._remove(index, 1)
                self._scanned = index
                return
        self._remove(0, 1)


def merge_key(beat: pb.Beat) -> tuple[object, ...]:
    """What must be the same in two beats for one to speak for both."""
    hindered = tuple((one.type, one.subject) for one in beat.conditions)
    return (beat.health, beat.generation, beat.release, beat.digest, beat.config_digest, hindered)
