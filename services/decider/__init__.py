"""SIRA: takes an incident, chooses a remedy, says how sure it is and why, and learns from verified outcomes."""
