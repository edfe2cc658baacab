"""Configurations: published once, verified then and at every use, never changed.

Rule: a configuration is known only when both pinned keys signed it and the document is the one they signed. The same
document again is the same configuration; another one under a known version is refused.
"""

# ruff: noqa: N802 - the proto names the methods

from typing import Any

from libs.common import access, paging
from libs.common.bus import fact
from libs.common.database import Transaction
from libs.common.errors import Conflict, Invalid, NotFound, Refused
from libs.common.names import parse_configuration
from prunella.v1 import events_pb2, patcher_pb2, patcher_pb2_grpc
from services.patcher import wire
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.staging.signed import ReleaseError, verified_configuration
from services.patcher.store import configurations
from services.patcher.store.configurations import Configuration

OF_DOCUMENT = frozenset({"DIGEST_MISMATCH", "CONFIG_TOO_LARGE", "CONFIG_MALFORMED"})


class ConfigurationHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The configurations' part of PatcherService."""

    ctx: ServiceContext

    async def PublishConfiguration(
        self, request: patcher_pb2.PublishConfigurationRequest, context: Any
    ) -> patcher_pb2.PublishConfigurationResponse:
        """Makes a configuration known. Raises Invalid when it does not verify, Conflict when its version is taken."""
        actor = access.caller(context)
        if not self.ctx.keys:
            raise Refused(
                "no release keys are pinned; set PATCHER_RELEASE_KEYS to the two public keys", reason="KEYS_NOT_PINNED"
            )
        try:
            given, document = verified_configuration(request.envelope, request.document, self.ctx.keys)
        except ReleaseError as error:
            raise Invalid(
                f"the configuration cannot be published: {error.message}",
                reason=error.reason,
                field="document" if error.reason in OF_DOCUMENT else "envelope",
            ) from error

        async def work(tx: Transaction) -> Configuration:
            named = (given.package, given.version, given.plugin, given.digest)
            made = Configuration(*named, document, request.envelope, tx.now, actor)
            if await configurations.insert(tx, made):
                told = events_pb2.ConfigurationPublished(
                    package=made.package, plugin=made.plugin, version=made.version, digest=made.digest
                )
                reason = f"configuration {made.version} of {made.package} was published"
                tx.record(fact(SCHEMA, told, actor=actor, reason=reason, plugin=made.plugin))
                return made
            known = await configurations.get(tx, made.package, made.version)
            if known is None or (known.digest, known.plugin) != (made.digest, made.plugin):
                raise Conflict(
                    f"configuration {made.version} of {made.package} is published with other contents; a version never "
                    "changes, publish a new one",
                    reason="VERSION_PUBLISHED",
                    field="envelope",
                    package=made.package,
                    version=made.version,
                )
            return known

        found = await self.ctx.database.transaction(work)
        return patcher_pb2.PublishConfigurationResponse(configuration=wire.configuration(found))

    async def GetConfiguration(
        self, request: patcher_pb2.GetConfigurationRequest, _context: Any
    ) -> patcher_pb2.GetConfigurationResponse:
        """One configuration with its document. Raises NotFound."""
        package, version = parse_configuration(request.name)
        async with self.ctx.database.reading() as tx:
            found = await configurations.get(tx, package, version)
        if found is None:
            raise NotFound(
                f"configuration {version} of package {package} is not published; publish it first",
                reason="CONFIGURATION_UNKNOWN",
                field="name",
                package=package,
                version=version,
            )
        return patcher_pb2.GetConfigurationResponse(configuration=wire.configuration(found))

    async def ListConfigurations(
        self, request: patcher_pb2.ListConfigurationsRequest, _context: Any
    ) -> patcher_pb2.ListConfigurationsResponse:
        """Configurations without their documents, newest first. Raises Invalid for bad paging."""
        size = paging.page_size(request.page_size)
        plugin = request.plugin.removeprefix("plugins/")
        query = {"list": "configurations", "package": request.package, "plugin": plugin}
        after = paging.open_token(request.page_token, query)
        async with self.ctx.database.reading() as tx:
            found = await configurations.page(tx, package=request.package, plugin=plugin, after=after, limit=size + 1)
        last = found[size - 1] if len(found) > size else None
        return patcher_pb2.ListConfigurationsResponse(
            configurations=[wire.configuration(one) for one in found[:size]],
            next_page_token=paging.token(query, [last.publish_time, last.package, last.version]) if last else "",
        )
