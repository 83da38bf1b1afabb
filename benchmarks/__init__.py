"""Measurements: `python -m benchmarks fetch` compares whole fetches in one run, `python -m benchmarks load` what brings weights
into memory; `make bench` times the pieces too.

Both, in `fetching` and `loading`, have scenarios, contenders and rows of their own, and share how a process is measured
(`measuring`), how rounds interleave (`rounds`), what a ratio is (`ratios`), and the shape of a report (`report`). LOG.md keeps
what was measured, with the attempts that did not help.
"""
