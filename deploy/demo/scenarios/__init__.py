"""Scenarios: faults made on purpose on a running plane, with the end that each must have."""
