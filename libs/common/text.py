"""Text from outside is cleaned once, where it enters. The one implementation is the agent's."""

from prunella_agent.text import clean_line, clean_text, clean_values

__all__ = ["clean_line", "clean_text", "clean_values"]
