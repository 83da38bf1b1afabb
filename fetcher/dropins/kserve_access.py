"""The credentials that KServe's variables give for one source. Each store has its own, so none sees those of another.

The stores' modules are imported only for their sources: some need libraries that take long to import.
"""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.dropins.kserve import store_of
from fetcher.sources.access import Access


def access_to(source: str, environ: Mapping[str, str]) -> Access | None:
    """Return the access to `source`; None for that of the process. May block. Raises ConfigurationError, UsageError."""
    match store_of(source):
        case "s3":
            from fetcher.dropins.kserve_s3 import s3_access

            return s3_access(environ)
        case "gcs":
            from fetcher.dropins.kserve_gcs import gcs_access

            return gcs_access(environ)
        case "azure":
            from fetcher.dropins.kserve_azure import azure_access

            return azure_access(source, environ)
        case "oci":
            from fetcher.dropins.kserve_oci import oci_access

            return oci_access(source, environ)
        case None:
            return None
