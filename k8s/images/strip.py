"""What the image does not take over from its base: tools that install or build, docs, caches, privileges, a cold start.

Runs in the base image's own filesystem, as root. Licenses stay (`/usr/share/doc/*/copyright`), and so does the package
database, by which scanners know what is here.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import stat
import sysconfig
from pathlib import Path

STANDARD_LIBRARY = ("ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo")
"""Parts of it that install packages, test Python or draw windows."""

INSTALLERS = ("pip*", "setuptools*", "_distutils_hack", "distutils-precedence.pth", "wheel*", "pkg_resources")

PROGRAMS = ("pip*", "wheel", "idle*", "2to3*", "pydoc*")

GENERATED = ("var/cache", "var/lib/apt/lists", "var/log", "usr/share/man", "usr/share/info", "usr/share/locale", "root/.cache")


def main() -> None:
    root = Path("/")
    library = Path(sysconfig.get_path("stdlib"))
    sites = {Path(sysconfig.get_path("purelib")), Path("/usr/lib/python3/dist-packages")}
    for name in STANDARD_LIBRARY:
        _remove(library / name)
    for directory, patterns in [*((site, INSTALLERS) for site in sites), (Path(sysconfig.get_path("scripts")), PROGRAMS)]:
        for pattern in patterns:
            for path in directory.glob(pattern):
                _remove(path)
    for name in GENERATED:
        for path in (root / name).glob("*"):
            _remove(path)
    for path in (root / "usr/share/doc").glob("*/*"):
        if path.name != "copyright":
            _remove(path)
    for path in root.glob("usr/**/*"):
        _take_privileges_from(path)
    # python's own images come without bytecode: each start would compile what it imports, and could not keep it.
    if not compileall.compile_dir(
        library, quiet=1, force=True, workers=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    ):
        raise SystemExit("the standard library did not compile")


def _take_privileges_from(path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
        path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
