"""The peers' side: one small program each, which the bench starts as a process of its own.

They run on the Python of the peers' environment, so they import nothing of the bench or the fetcher.
"""
