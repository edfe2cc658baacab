"""Releases: published once, verified then and at every use, never changed.

Rule: a release is known only when both pinned keys signed its manifest and the artifact is the one the manifest
names. The same bytes again are the same release; other bytes under a known version are refused.
"""

# ruff: noqa: N802 - the proto names the methods

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from libs.common import access, paging
from libs.common.bus import fact
from libs.common.database import Transaction
from libs.common.errors import Conflict, Invalid, NotFound, Refused
from libs.common.names import parse_release
from prunella.v1 import events_pb2, patcher_pb2, patcher_pb2_grpc
from prunella_agent.releases import Manifest, key_id
from services.patcher import wire
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.staging.signed import ReleaseError, verified
from services.patcher.store import releases
from services.patcher.store.releases import Release

PIECE = 256 * 1024


class ReleaseHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The releases' part of PatcherService."""

    ctx: ServiceContext

    async def PublishRelease(
        self, request: patcher_pb2.PublishReleaseRequest, context: Any
    ) -> patcher_pb2.PublishReleaseResponse:
        """Makes a release known. Raises Invalid when it does not verify, Conflict when its version is taken."""
        earlier = await self.ctx.requests.earlier(request, patcher_pb2.PublishReleaseResponse)
        if earlier is not None:
            return earlier
        actor = access.caller(context)
        manifest = publishable(request.envelope, request.artifact, self.ctx.keys)

        async def publish(tx: Transaction) -> Release:
            ids = tuple(sorted(key_id(key) for key in self.ctx.keys))
            made = Release(
                manifest.digest, manifest.package, manifest.version, manifest.size, request.envelope, tx.now, actor, ids
            )
            if await releases.insert(tx, made, request.artifact):
                published = events_pb2.ReleasePublished(package=made.package, version=made.version, digest=made.digest)
                tx.record(fact(SCHEMA, published, actor=actor, reason=f"{made.package} {made.version} was published"))
                return made
            known = await releases.get(tx, made.package, made.version)
            if known is None:
                message = "the same artifact is published under another version"
                raise Conflict(message, reason="ARTIFACT_PUBLISHED", digest=made.digest)
            if known.digest != made.digest:
                raise version_taken("release", made.package, made.version)
            return known

        async def work(tx: Transaction) -> patcher_pb2.PublishReleaseResponse:
            return patcher_pb2.PublishReleaseResponse(release=wire.release(await publish(tx)))

        return await self.ctx.requests.once(request, patcher_pb2.PublishReleaseResponse, work)

    async def GetRelease(self, request: patcher_pb2.GetReleaseRequest, _context: Any) -> patcher_pb2.GetReleaseResponse:
        """One release. Raises NotFound."""
        package, version = parse_release(request.name)
        async with self.ctx.database.reading() as tx:
            found = await releases.get(tx, package, version)
        if found is None:
            raise unpublished("release", package, version)
        return patcher_pb2.GetReleaseResponse(release=wire.release(found))

    async def ListReleases(
        self, request: patcher_pb2.ListReleasesRequest, _context: Any
    ) -> patcher_pb2.ListReleasesResponse:
        """Releases, newest first. Raises Invalid for bad paging."""
        page = paging.page(request, {"list": "releases", "package": request.package}, datetime, str)
        async with self.ctx.database.reading() as tx:
            rows = await releases.page(tx, package=request.package, after=page.after, limit=page.limit)
        found, next_token = page.cut(rows, lambda row: (row.publish_time, row.digest))
        shown = [wire.release(each) for each in found]
        return patcher_pb2.ListReleasesResponse(releases=shown, next_page_token=next_token)

    async def FetchRelease(
        self, request: patcher_pb2.FetchReleaseRequest, _context: Any
    ) -> AsyncIterator[patcher_pb2.FetchReleaseResponse]:
        """The bytes of an artifact from an offset. Raises NotFound."""
        async with self.ctx.database.reading() as tx:
            found = await releases.by_digest(tx, request.digest)
        if found is None:
            raise NotFound(f"no artifact with digest {request.digest[:64]!r}", reason="RELEASE_UNKNOWN", field="digest")
        if not 0 <= request.offset <= found.size:
            raise Invalid("offset lies outside the artifact", reason="OFFSET_OUTSIDE", field="offset")
        offset = request.offset
        while offset < found.size:
            async with self.ctx.database.reading() as tx:
                chunk = await releases.piece(tx, found.digest, offset, PIECE)
            if not chunk:
                return
            yield patcher_pb2.FetchReleaseResponse(chunk=chunk, offset=offset, total_size=found.size)
            offset += len(chunk)


def require_keys(keys: tuple[bytes, ...]) -> None:
    """Raises Refused when no keys are pinned, since then nothing can be verified."""
    if not keys:
        raise Refused(
            "no release keys are pinned; set PATCHER_RELEASE_KEYS to the two public keys", reason="KEYS_NOT_PINNED"
        )


def publishable(envelope: bytes, artifact: bytes, keys: tuple[bytes, ...]) -> Manifest:
    """The manifest of a release that may be published. Raises Invalid, Refused when no keys are pinned."""
    require_keys(keys)
    try:
        return verified(envelope, artifact, keys)
    except ReleaseError as error:
        field = "artifact" if error.reason.startswith(("ARTIFACT", "SIZE", "DIGEST")) else "envelope"
        raise Invalid(f"the release cannot be published: {error.message}", reason=error.reason, field=field) from error


def unpublished(kind: str, package: str, version: str) -> NotFound:
    """Why there is nothing to show."""
    message = f"{kind} {version} of package {package} is not published; publish it first"
    return NotFound(message, reason=f"{kind.upper()}_UNKNOWN", field="name", package=package, version=version)


def version_taken(kind: str, package: str, version: str) -> Conflict:
    """Why nothing else can be published under a known version."""
    return Conflict(
        f"{kind} {version} of {package} is published with other contents; a version never changes, publish a new one",
        reason="VERSION_PUBLISHED",
        field="envelope",
        package=package,
        version=version,
    )
