"""Benchmarks: `python -m benchmarks fetch` compares whole fetches, `python -m benchmarks load` compares loaders.

`make bench` also times single pieces. The packages `fetching` and `loading` have their own scenarios, contenders and rows. They
share the measuring of a process (`measuring`), interleaved rounds (`rounds`), ratios (`ratios`) and the form of a report
(`report`). LOG.md records the results, including attempts that did not help.
"""
