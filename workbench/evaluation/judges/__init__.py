"""Judges: what scores an answer between 0 and 1 — models here or behind an endpoint."""
