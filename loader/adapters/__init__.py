"""Adapters to torch and inference engines. Each module imports its program, and only that program or a user imports it."""
