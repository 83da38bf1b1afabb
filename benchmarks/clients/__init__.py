"""Small programs that several comparisons start as separate processes: the bare loop, and `kserve-storage`.

The programs run on the Python of the peers' environment, so they do not import the bench or the fetcher.
"""
