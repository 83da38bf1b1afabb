"""`huggingface_hub.snapshot_download` into a plain directory, as engines read it."""

from __future__ import annotations

import argparse

from huggingface_hub import snapshot_download


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("repository")
    parser.add_argument("directory")
    parser.add_argument("--max-workers", type=int, required=True)
    arguments = parser.parse_args()
    snapshot_download(arguments.repository, local_dir=arguments.directory, max_workers=arguments.max_workers)


if __name__ == "__main__":
    main()
