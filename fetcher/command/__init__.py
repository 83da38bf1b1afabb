"""What a command of weightlift has, whatever it does: options and their variables, signals, a last line, an exit code, a
termination message. `fetcher` and `loader` are both made of it, and so speak and end alike."""
