"""Rows of spans. A span is written once; a repeat of it, which has the same start, changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from libs.common.database import Transaction
from services.ops.traces import Span

MOST = 5000  # spans of one story that are read
MERCHANT = "merchant"  # the attribute that says whose a span is

INSERT = """
INSERT INTO ops.spans
    (trace_id, span_id, parent_id, merchant, service, name, start_time, end_time, error, attributes, links,
     receive_time)
SELECT trace_id, span_id, parent_id, merchant, service, name, start_time, end_time, error, CAST(attributes AS jsonb),
       ARRAY(SELECT jsonb_array_elements_text(CAST(links AS jsonb))), :now
FROM unnest(
    CAST(:traces AS text[]), CAST(:ids AS text[]), CAST(:parents AS text[]), CAST(:merchants AS text[]),
    CAST(:services AS text[]), CAST(:names AS text[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]),
    CAST(:errors AS text[]), CAST(:attributes AS text[]), CAST(:links AS text[]))
    AS s(trace_id, span_id, parent_id, merchant, service, name, start_time, end_time, error, attributes, links)
ON CONFLICT DO NOTHING
"""
# A story is its own traces, what they link to, and what links to them.
STORY = """
WITH named AS (SELECT unnest(CAST(:traces AS text[])) AS trace_id),
     linked AS (
        SELECT trace_id FROM named
        UNION SELECT unnest(s.links) FROM ops.spans s JOIN named USING (trace_id)
        UNION SELECT s.trace_id FROM ops.spans s WHERE s.links && CAST(:traces AS text[]) AND s.links <> '{}')
SELECT s.trace_id AS trace, s.span_id AS id, s.parent_id AS parent, s.service, s.name, s.start_time AS start,
       s.end_time AS "end", s.error, s.attributes, s.links
FROM ops.spans s JOIN linked USING (trace_id) ORDER BY s.start_time, s.span_id LIMIT :limit
"""
DELETE = """
DELETE FROM ops.spans WHERE (trace_id, span_id, start_time) IN (
    SELECT trace_id, span_id, start_time FROM ops.spans WHERE receive_time < :before ORDER BY receive_time LIMIT :batch
    FOR UPDATE SKIP LOCKED)
"""
# Only the partitions are analysed by themselves; -1 stands for one that never was.
ESTIMATE = """
SELECT sum(greatest(c.reltuples, 0))::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'ops.spans'::regclass
"""
# How old the oldest rows are that a bound on the count leaves no room for.
EXCESS = "SELECT receive_time FROM ops.spans ORDER BY receive_time OFFSET :excess LIMIT 1"


async def insert(tx: Transaction, spans: Sequence[Span]) -> int:
    """Writes a batch in one statement; how many were new."""
    return await tx.run(
        INSERT,
        now=tx.now,
        traces=[span.trace for span in spans],
        ids=[span.id for span in spans],
        parents=[span.parent for span in spans],
        merchants=[str(span.attributes.get(MERCHANT, "")) for span in spans],
        services=[span.service for span in spans],
        names=[span.name for span in spans],
        starts=[span.start for span in spans],
        ends=[span.end for span in spans],
        errors=[span.error for span in spans],
        attributes=[json.dumps(dict(span.attributes)) for span in spans],
        links=[json.dumps(list(span.links)) for span in spans],
    )


async def story(tx: Transaction, traces: Sequence[str]) -> list[Span]:
    """The spans of these traces and of those linked with them, by start, at most MOST."""
    rows = await tx.all(STORY, traces=list(traces), limit=MOST)
    return [Span(**row._asdict() | {"links": tuple(row.links)}) for row in rows]


async def delete_before(tx: Transaction, before: datetime, batch: int) -> int:
    """Removes up to `batch` spans received before a moment."""
    return await tx.run(DELETE, before=before, batch=batch)


async def retention_limit(tx: Transaction, most: int) -> datetime | None:
    """The moment before which spans must go so that about `most` stay; None when there are no more than that."""
    excess = int(await tx.value(ESTIMATE) or 0) - most
    return await tx.value(EXCESS, excess=excess) if excess > 0 else None
