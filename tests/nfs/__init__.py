"""Both programs on a real NFSv4.2 mount."""
