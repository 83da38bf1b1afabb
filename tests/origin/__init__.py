"""The origin that all other tests lean on: that it is right, and that it goes wrong exactly as asked."""
