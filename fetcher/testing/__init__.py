"""Test tools for the fetcher and for projects that use it: an origin that misbehaves on demand, and a conformance suite.

::

    origin          Origin: a Hub and a CDN on loopback; also `python -m fetcher.testing DIR`
    faults          Fault and Faults: which requests fail
    effects         effects that change the response: status, redirect, wrong heads, wrong bytes
    listings        effects that make a listing hostile
    interruptions   effects on the connection: a reset, a FIN, a stall, a trickle
    checkpoint      generated weights
    conformance     SourceConformance: the contract of a source as a pytest suite

Import from the modules: `conformance` needs pytest, and an origin with TLS needs trustme. The rest needs neither.
"""

from __future__ import annotations
