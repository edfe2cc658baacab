"""Every SQL statement of the decider: decisions in one file, what was learned in the other."""
