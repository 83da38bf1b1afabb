"""HTTP: connections, heads and bodies. The only package that uses aiohttp.

`ranges` and `statuses` are pure decisions. `client` opens a response, and `body` chooses how to receive it.

The receive path: a body of announced length that is the content itself bypasses aiohttp's parser (`Body.direct`;
`tests/sources/test_paths.py` lists every source and kind of answer). The event loop only waits, for half a megabyte
(SO_RCVLOWAT). The writing thread takes the bytes from the kernel, decrypts them where there is TLS, into a buffer that stays in
its processor's cache (`tap`, `tls`). On another event loop than ours (`fetch_async`), that loop decrypts into pooled buffers
(`sink`). Anything else takes the ordinary path. While nobody reads, the kernel's buffer fills, so a slow disk slows the sender.

From https a redirect to http is followed only for a file with a published or pinned digest, and without the token: elsewhere
anyone on the way could change a file that nothing else vouches for.
"""
