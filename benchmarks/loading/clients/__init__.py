"""A small program for each way of loading, run as a separate process: `python -m benchmarks.loading.clients.<name>`.

Programs of the peers run on the Python of their environment, so they import only `timed` from the bench and nothing from the
loader.
"""
