"""The origin that the command is tried with elsewhere, too."""

from __future__ import annotations

from tests.cli.conftest import origin as origin
