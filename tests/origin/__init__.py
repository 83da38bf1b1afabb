"""Tests of the origin that other tests rely on: it is correct, and it misbehaves exactly as requested."""
