"""The lab: real filesystems, a real nginx, a filesystem that fails on demand, real processes. Nothing here is a mock.

Each part is a context manager or a function, usable by itself; `tests.lab.fixtures` offers them to every test. The
tests beside them prove that each part does what it says: that ENOSPC and EIO really come, that power loss really loses
data.
"""
