"""Configurations: published once, verified then and at every use, never changed.

Rule: a configuration is known only when both pinned keys signed it and the document is the one they signed. The same
document again is the same configuration; another one under a known version is refused.
"""

# ruff: noqa: N802 - the proto names the methods

from datetime import datetime
from typing import Any

from libs.common import access, names, paging
from libs.common.bus import fact
from libs.common.database import Transaction
from libs.common.errors import Invalid
from libs.common.names import parse_configuration
from prunella.v1 import events_pb2, patcher_pb2, patcher_pb2_grpc
from services.patcher import wire
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.handlers.releases import require_keys, unpublished, version_taken
from services.patcher.operations.ingest_queries import get_plugin
from services.patcher.staging.signed import ReleaseError, SignedConfiguration, verified_configuration
from services.patcher.store import configurations
from services.patcher.store.configurations import Configuration

OF_DOCUMENT = frozenset({"DIGEST_MISMATCH", "CONFIG_TOO_LARGE", "CONFIG_MALFORMED"})


class ConfigurationHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The configurations' part of PatcherService."""

    ctx: ServiceContext

    async def PublishConfiguration(
        self, request: patcher_pb2.PublishConfigurationRequest, context: Any
    ) -> patcher_pb2.PublishConfigurationResponse:
        """Makes a configuration known. Raises Invalid when it does not verify, Conflict when its version is taken.

        One for a single plugin belongs to the plugin's merchant; raises Unavailable when ingest is away.
        """
        actor = access.caller(context)
        earlier = await self.ctx.requests.earlier(request, patcher_pb2.PublishConfigurationResponse)
        if earlier is not None:
            return earlier
        signed, document = publishable(request.envelope, request.document, self.ctx.keys)
        plugin = await get_plugin(self.ctx, signed.plugin) if signed.plugin else None
        made = Configuration(
            package=signed.package,
            version=signed.version,
            plugin=signed.plugin,
            merchant=plugin.merchant if plugin else "",
            digest=signed.digest,
            document=document,
            envelope=request.envelope,
            publish_time=self.ctx.clock.now(),
            publisher=actor,
        )

        async def work(tx: Transaction) -> patcher_pb2.PublishConfigurationResponse:
            return patcher_pb2.PublishConfigurationResponse(configuration=wire.configuration(await _publish(tx, made)))

        return await self.ctx.requests.once(request, patcher_pb2.PublishConfigurationResponse, work)

    async def GetConfiguration(
        self, request: patcher_pb2.GetConfigurationRequest, _context: Any
    ) -> patcher_pb2.GetConfigurationResponse:
        """One configuration with its document. Raises NotFound."""
        package, version = parse_configuration(request.name)
        async with self.ctx.database.reading() as tx:
            found = await configurations.get(tx, package, version)
        if found is None:
            raise unpublished("configuration", package, version)
        return patcher_pb2.GetConfigurationResponse(configuration=wire.configuration(found))

    async def ListConfigurations(
        self, request: patcher_pb2.ListConfigurationsRequest, _context: Any
    ) -> patcher_pb2.ListConfigurationsResponse:
        """Configurations without their documents, newest first. Raises Invalid for bad paging."""
        filters = {"package": request.package, "plugin": names.id_of(request.plugin)}
        page = paging.page(request, {"list": "configurations", **filters}, datetime, str, str)
        async with self.ctx.database.reading() as tx:
            rows = await configurations.page(tx, **filters, after=page.after, limit=page.limit)
        found, next_token = page.cut(rows, lambda row: (row.publish_time, row.package, row.version))
        shown = [wire.configuration(each) for each in found]
        return patcher_pb2.ListConfigurationsResponse(configurations=shown, next_page_token=next_token)


def publishable(envelope: bytes, document: bytes, keys: tuple[bytes, ...]) -> tuple[SignedConfiguration, bytes]:
    """What was signed, and its document. Raises Invalid when it does not verify, Refused when no keys are pinned."""
    require_keys(keys)
    try:
        return verified_configuration(envelope, document, keys)
    except ReleaseError as error:
        field = "document" if error.reason in OF_DOCUMENT else "envelope"
        message = f"the configuration cannot be published: {error.message}"
        raise Invalid(message, reason=error.reason, field=field) from error


async def _publish(tx: Transaction, made: Configuration) -> Configuration:
    if await configurations.insert(tx, made):
        published = events_pb2.ConfigurationPublished(
            package=made.package, plugin=made.plugin, version=made.version, digest=made.digest
        )
        reason = f"configuration {made.version} of {made.package} was published"
        who, plugin, merchant = made.publisher, made.plugin, made.merchant
        tx.record(fact(SCHEMA, published, actor=who, reason=reason, plugin=plugin, merchant=merchant))
        return made
    known = await configurations.get(tx, made.package, made.version)
    if known is None or (known.digest, known.plugin) != (made.digest, made.plugin):
        raise version_taken("configuration", made.package, made.version)
    return known
