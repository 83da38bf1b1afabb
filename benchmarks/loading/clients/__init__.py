"""One small program for each way of loading, run as a process of its own: `python -m benchmarks.loading.clients.<name>`.

The peers' run on the Python of the peers' environment, so they import nothing of the loader, and of the bench only `timed`.
"""
