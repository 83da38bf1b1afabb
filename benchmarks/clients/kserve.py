"""Call `kserve-storage` like the storage-initializer's entry point: `kserve.py SOURCE DIRECTORY [SOURCE DIRECTORY ...]`."""

from __future__ import annotations

import sys

from kserve_storage import Storage


def main() -> None:
    words = sys.argv[1:]
    Storage.download_files(words[::2], words[1::2])


if __name__ == "__main__":
    main()
