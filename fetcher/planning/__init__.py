"""Pure decisions: which files, which byte ranges, in which order, with how much memory. No I/O."""
