"""Measurements: `python -m benchmarks fetch` compares whole fetches in one run; `make bench` times the pieces too.

`scenarios` says what is compared and `ratios` what must come of it; `running` plays a scenario, with `server`, `link` and
`disk` around it, the commands of `commands` and the costs of `measuring`; `report` and `plots` tell. LOG.md keeps what was
measured, with the attempts that did not help.
"""
