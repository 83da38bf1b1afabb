"""What this process may use of the machine it runs on: processors and memory, as its cgroups leave them, and what is mounted
where. Machines that were recorded are read alike: each function takes the directory in which /proc and /sys are."""
