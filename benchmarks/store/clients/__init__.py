"""Programs of this comparison, which run on the Python of the peers' environment."""
