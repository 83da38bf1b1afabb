"""Strip the base image: remove installers, build tools, documentation, caches and privileges, and compile bytecode.

It runs in the base image's filesystem, as root. Licenses (`/usr/share/doc/*/copyright`) and the package database stay: scanners
need the database.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
LIBRARY = Path(sysconfig.get_path("stdlib"))
SITES = (Path(sysconfig.get_path("purelib")), Path("/usr/lib/python3/dist-packages"))

UNWANTED = {
    LIBRARY: ("ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo"),
    **dict.fromkeys(SITES, ("pip*", "setuptools*", "_distutils_hack", "distutils-precedence.pth", "wheel*", "pkg_resources")),
    Path(sysconfig.get_path("scripts")): ("pip*", "wheel", "idle*", "2to3*", "pydoc*"),
    ROOT / "var": ("cache/*", "lib/apt/lists/*", "log/*"),
    ROOT / "usr/share": ("man/*", "info/*", "locale/*", "doc/*/*[!t]"),
    ROOT / "root": (".cache",),
}
"""Files to remove, as patterns below a directory. `copyright` ends in t, unlike most other files in doc."""


def main() -> None:
    for path in unwanted():
        remove(path)
    for path in ROOT.glob("usr/**/*"):
        take_privileges_from(path)
    compile_library()


def unwanted() -> Iterator[Path]:
    for directory, patterns in UNWANTED.items():
        for pattern in patterns:
            yield from list(directory.glob(pattern))


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def take_privileges_from(path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
        path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))


def compile_library() -> None:
    """Compile the standard library: the Python images lack bytecode, and a read-only container compiles at each start."""
    trusted = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(LIBRARY, quiet=1, force=True, workers=0, invalidation_mode=trusted):
        raise SystemExit("the standard library did not compile")


if __name__ == "__main__":
    main()
