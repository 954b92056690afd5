"""Benchmarks: the workbench and the published procedure, side by side in one run."""
