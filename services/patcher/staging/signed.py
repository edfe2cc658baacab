"""What makes a release or a configuration one: both pinned keys signed it, and the bytes are the ones they signed.

Rule: asked when one is published and again each time it is used, so that a row somebody altered is worth nothing.
"""

from prunella_agent import configurations
from prunella_agent.archive import members
from prunella_agent.configurations import Configuration as SignedConfiguration
from prunella_agent.releases import Manifest, ReleaseError, check_artifact, verify

__all__ = ["ReleaseError", "SignedConfiguration", "verified", "verified_configuration"]


def verified(envelope: bytes, artifact: bytes, keys: tuple[bytes, ...]) -> Manifest:
    """The manifest of a release that may be used. Raises ReleaseError, whose reason says what is wrong."""
    manifest = verify(envelope, keys)
    check_artifact(manifest, artifact)
    members(artifact)
    return manifest


def verified_configuration(
    envelope: bytes, document: bytes, keys: tuple[bytes, ...]
) -> tuple[SignedConfiguration, bytes]:
    """A configuration that may be used, and its document in canonical form. Raises ReleaseError."""
    return configurations.verify(envelope, document, keys)
