"""The parts that are not Python: SHA-256 of several files at once, and CRCs. Everything else is in pyproject.toml."""

from __future__ import annotations

from setuptools import Extension, setup


def extension(name: str, header: str) -> Extension:
    """An extension of one source and one header, which is included several times."""
    return Extension(
        f"fetcher.integrity.{name}",
        [f"fetcher/integrity/{name}.c"],
        depends=[f"fetcher/integrity/{header}"],
        extra_compile_args=["-O3", "-Wno-psabi"],
        py_limited_api=True,
        # Without a compiler the package is complete all the same: hashlib does the work, one file at a time, and files whose
        # source publishes only a CRC count as not compared with it.
        optional=True,
    )


setup(
    ext_modules=[extension("_sha256", "_sha256_lanes.h"), extension("_crc", "_crc_fold.h")],
    # One wheel for every Python from 3.11 on.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
