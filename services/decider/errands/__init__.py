"""What the decider wants done outside: one thing, asking the external SIRA."""
