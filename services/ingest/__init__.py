"""Hears agents, opens and closes incidents, delivers commands."""
