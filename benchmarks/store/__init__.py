"""Compare fetches from an object store: the fetcher, the tools that people use today, and a bare loop.

`servers` are SeaweedFS, a real store that shares the processors, and nginx, which answers S3's GET, HEAD and List. `contenders`
has the commands, `scenarios` the comparisons and their required ratios, `comparison` runs and reports them.
"""
