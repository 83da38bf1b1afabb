"""What runs once in a cluster: it decides which node shall have which model, and tells users how far that is.

`world` is what was observed, `planning` decides purely what shall be, `writing` writes the differences. `resolving` asks
sources, `running` keeps all of it going.
"""
