"""The lab: real filesystems, a real nginx, a filesystem that fails on demand, real processes. It has no mocks.

Each part is a context manager or a function. `tests.lab.fixtures` provides them to all tests. The tests in this package prove
that each part works: that ENOSPC and EIO occur, and that power loss loses data.
"""
