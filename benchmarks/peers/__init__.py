"""One model for several nodes on shaped links: how long until the last one has it, and what it costs the origin."""
