"""Beats per second, durable, one ingest process, beside a bare grpc.aio echo in the same run."""

from __future__ import annotations

import contextlib
from typing import Any

from tests.bench.backing import answer, child, plane, run, seed

PLUGINS = 50_000
SECONDS = 8.0
SHAPES: dict[str, dict[str, int]] = {
    "closed": {"workers": 64, "window": 1},
    "pipelined": {"workers": 256, "window": 8},
    "batch": {"workers": 8, "window": 1},
}
TARGETS = {"closed": 0.45, "pipelined": 0.65}
BATCH_TARGET = 100_000


async def measure(plugins: int = PLUGINS, seconds: float = SECONDS) -> dict[str, Any]:
    """Each shape against the peer and against ingest, one after the other."""
    figures: dict[str, Any] = {"plugins": plugins}
    echo = await child("tests.bench.echo", {})
    try:
        peer = (await answer(echo))["address"]
        async with plane({"INGEST_BEAT_SECONDS": "30"}, services=("ingest",)) as running:
            ids = await seed(running.database_url, plugins)
            for number, (shape, order) in enumerate(SHAPES.items()):
                whole: dict[str, Any] = {
                    "shape": shape,
                    "plugins": ids,
                    "seconds": seconds,
                    "first": 1 + number * 1_000_000,
                    **order,
                }
                bare = await run("tests.bench.load", {**whole, "address": peer})
                ours = await run("tests.bench.load", {**whole, "address": running.addresses["ingest"]})
                ratio = round(ours["beats_per_second"] / bare["beats_per_second"], 3)
                figures[shape] = {"ingest": ours, "echo": bare, "ratio": ratio}
                if shape in TARGETS:
                    figures[shape] |= {"target_ratio": TARGETS[shape], "reached": ratio >= TARGETS[shape]}
                else:
                    reached = ours["beats_per_second"] >= BATCH_TARGET
                    figures[shape] |= {"target_beats_per_second": BATCH_TARGET, "reached": reached}
    finally:
        with contextlib.suppress(ProcessLookupError):
            echo.kill()
        await echo.wait()
    return figures
