"""Stages, applies, judges, commits or rolls back, under a policy that people control."""
