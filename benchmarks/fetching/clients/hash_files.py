"""SHA-256 of files in sequence by `hashlib`, as an application does."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path


def main() -> None:
    for name in sys.argv[1:]:
        with Path(name).open("rb", buffering=0) as file:
            print(hashlib.file_digest(file, "sha256").hexdigest())


if __name__ == "__main__":
    main()
