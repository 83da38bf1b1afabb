"""Both commands on a real NFSv4.2 mount."""
