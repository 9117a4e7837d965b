"""Monitoring: which metrics are out of range, which of those are one incident, and what is said about it."""
