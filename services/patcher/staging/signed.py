"""What makes a release one: both pinned keys signed its manifest, and the artifact is the one the manifest names.

Rule: asked when a release is published and again each time it is used, so that a row somebody altered is worth nothing.
"""

from prunella_agent.archive import members
from prunella_agent.releases import Manifest, ReleaseError, check_artifact, verify

__all__ = ["ReleaseError", "verified"]


def verified(envelope: bytes, artifact: bytes, keys: tuple[bytes, ...]) -> Manifest:
    """The manifest of a release that may be used. Raises ReleaseError, whose reason says what is wrong."""
    manifest = verify(envelope, keys)
    check_artifact(manifest, artifact)
    members(artifact)
    return manifest
