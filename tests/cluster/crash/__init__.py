"""Agents and controllers that are killed, and what must hold all the while."""
