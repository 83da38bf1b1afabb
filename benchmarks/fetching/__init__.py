"""Whole fetches: the fetcher, what people use today, and a bare loop.

`scenarios` says what is compared and `rows` what must come of it; `running` plays a scenario, with `server` and `link` around
it and the commands of `commands`; `report` and `plots` tell.
"""
