"""Compare whole fetches: the fetcher, the tools that people use today, and a bare loop.

`scenarios` defines the comparisons and `rows` the required ratios. `running` runs a scenario with `server`, `link` and the
commands of `commands`. `report` and `plots` show the results.
"""
