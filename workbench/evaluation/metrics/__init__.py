"""Metrics: pure functions, each with its source."""
