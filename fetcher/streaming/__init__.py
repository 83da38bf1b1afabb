"""An artifact read from its source into memory, without a disk between: what `fetcher.api.open_source` returns.

::

    a thread of the caller    asks for a range, and waits
    the event loop            opens the range, waits for its bytes, asks again after an error
    the same thread           reads the bytes from the kernel into the caller's memory, and computes checksums on the way
"""
