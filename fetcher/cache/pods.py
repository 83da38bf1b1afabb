"""The pods of this node, as the kubelet's directory shows them: one directory for each, named by its UID."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from fetcher.errors import ConfigurationError
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class KubeletPods:
    """`directory` is usually `/var/lib/kubelet/pods`. `own`: the UID of the pod that asks, which must be there."""

    directory: Path
    own: str

    def gone(self) -> Callable[[str], bool]:
        """Return a function that tells whether the pod with a UID is gone. A holder that is no UID is never gone.

        Raises ConfigurationError if the directory does not show this pod: it is not the kubelet's, so nothing is known.
        """
        try:
            present = frozenset(os.listdir(self.directory))
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {self.directory}: {(error.strerror or str(error)).lower()}; mount the kubelet's directory of "
                "pods read-only, and add group 0 to the pod's supplementalGroups"
            ) from error
        if self.own not in present:
            raise ConfigurationError(
                f"{self.directory} does not have this pod, {self.own}; mount the kubelet's directory of pods, and set "
                "FETCHER_POD_UID to metadata.uid"
            )
        return lambda holder: _is_uid(holder) and holder not in present


def _is_uid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
