"""HTTP, and nothing above it: connections, heads, bodies. The only package that knows aiohttp.

`ranges` and `statuses` decide purely; `client` opens a response; `body` receives it (the seam for a faster path).
"""
