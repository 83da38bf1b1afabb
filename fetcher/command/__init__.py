"""The parts that all commands of weightlift share: options and their variables, signals, the last line, exit codes and the
termination message. `fetcher` and `loader` both use them, so their options and endings are alike."""
