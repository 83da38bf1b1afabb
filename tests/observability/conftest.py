"""The origin of the command-line tests."""

from __future__ import annotations

from tests.cli.conftest import origin as origin
