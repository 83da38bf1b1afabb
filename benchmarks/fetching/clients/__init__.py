"""A small program for each peer, which the bench starts as a separate process.

The programs run on the Python of the peers' environment, so they do not import the bench or the fetcher.
"""
