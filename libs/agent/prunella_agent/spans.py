"""The steps the agent took for one command, with their times, for the trace of the healing.

Rule: spans are made as things happen and travel with the result; at most 32 of them, and never a reason to fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prunella.v1 import agent_pb2 as pb
from prunella_agent.clock import Clock

MAX_SPANS = 32


class Spans:
    """The steps of one command."""

    def __init__(self, clock: Clock, traceparent: str) -> None:
        self._clock = clock
        self._traceparent = traceparent
        self.taken: list[pb.AgentSpan] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Records a step from here to the end of the block, with the error that ended it."""
        span = pb.AgentSpan(name=name, traceparent=self._traceparent)
        span.start_time.FromDatetime(self._clock.now())
        try:
            yield
        except BaseException as error:
            span.error = f"{type(error).__name__}: {error}"[:500]
            raise
        finally:
            span.end_time.FromDatetime(self._clock.now())
            if len(self.taken) < MAX_SPANS:
                self.taken.append(span)
