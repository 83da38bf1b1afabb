"""HTTP: connections, heads and bodies. The only package that uses aiohttp.

`ranges` and `statuses` are pure decisions. `client` opens a response, and `body` chooses how to receive it.
"""
