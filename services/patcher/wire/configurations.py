"""Configurations as callers see them."""

from libs.common import names
from prunella.v1 import patcher_pb2
from services.patcher.store.configurations import Configuration
from services.patcher.wire.scalars import timestamp


def configuration(found: Configuration) -> patcher_pb2.Configuration:
    """A configuration as callers see it."""
    return patcher_pb2.Configuration(
        name=names.configuration(found.package, found.version),
        package=found.package,
        plugin=found.plugin,
        version=found.version,
        digest=found.digest,
        document=found.document,
        envelope=found.envelope,
        publish_time=timestamp(found.publish_time),
        publisher=found.publisher,
    )
