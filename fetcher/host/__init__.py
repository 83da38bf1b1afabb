"""The machine as this process may use it: processors and memory within its cgroups' limits, mounts, descriptors, libc.

Functions that read /proc and /sys take the directory that holds them, so that tests can read recorded machines.
"""
