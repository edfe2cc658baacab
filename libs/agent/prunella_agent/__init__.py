"""The telemetry SDK of a plugin: three lines, no dependencies, and never a reason for the plugin to fail.

    import prunella_agent as prunella
    prunella.start(release="1.2.0")
    prunella.webhook(ok=True)

Rule: importing this package costs the standard library only. The supervisor and the session, which need gRPC, are
modules of their own (`prunella_agent.supervisor`, `prunella_agent.session`) and are imported by name.
"""

from prunella_agent.sdk import error, flush, number, report, signature_failure, start, webhook

__all__ = ["error", "flush", "number", "report", "signature_failure", "start", "webhook"]
