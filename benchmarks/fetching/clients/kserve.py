"""`kserve-storage`, as the storage-initializer's entry point calls it: `kserve.py SOURCE DIRECTORY`."""

from __future__ import annotations

import sys

from kserve_storage import Storage


def main() -> None:
    source, directory = sys.argv[1:]
    Storage.download(source, directory)


if __name__ == "__main__":
    main()
