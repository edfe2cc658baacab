"""What ops wants done outside: spans passed on, messages brought to people."""

from services.ops.errands.pass_on import PassOn

__all__ = ["PassOn"]
