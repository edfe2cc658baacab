"""Releases as callers see them."""

from libs.common import names
from prunella.v1 import patcher_pb2
from services.patcher.store.releases import Release
from services.patcher.wire.scalars import timestamp


def release(found: Release) -> patcher_pb2.Release:
    """A release as callers see it."""
    return patcher_pb2.Release(
        name=names.release(found.package, found.version),
        package=found.package,
        version=found.version,
        digest=found.digest,
        size=found.size,
        envelope=found.envelope,
        publish_time=timestamp(found.publish_time),
        publisher=found.publisher,
        key_ids=found.key_ids,
    )
