"""The one part that is not Python: SHA-256 of several files at once. Everything else is in pyproject.toml."""

from __future__ import annotations

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "fetcher.integrity._sha256",
            ["fetcher/integrity/_sha256.c"],
            depends=["fetcher/integrity/_sha256_lanes.h"],
            extra_compile_args=["-O3", "-Wno-psabi"],
            py_limited_api=True,
            # Without a compiler the package is complete all the same: hashlib does the work, one file at a time.
            optional=True,
        )
    ],
    # One wheel for every Python from 3.11 on.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
