"""Mutation testing of the hearts: small mistakes are put into them, and their unit tests must notice."""
