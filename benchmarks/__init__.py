"""Measurements: `python -m benchmarks fetch` compares whole downloads in one run; `make bench` times the pieces.

LOG.md keeps what was measured, with the attempts that did not help.
"""
