#!/bin/sh
# What is in the image, as CycloneDX: Debian's packages and Python's, in one list. Runs in the build stage that holds both.
set -eu
tools=/tools/environment/bin

"$tools/cyclonedx-py" environment --output-reproducible --pyproject /pyproject.toml --mc-type application \
  --output-file /python.cdx.json /opt/weightlift/bin/python
"$tools/debsbom" generate --sbom-type cdx --out /debian
"$tools/debsbom" merge --sbom-type cdx --out "$1" /python.cdx.json /debian.cdx.json
