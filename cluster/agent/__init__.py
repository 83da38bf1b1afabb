"""What runs on each node: it makes the node have what its NodeCache says, within the limits of the pool's root.

`states` are the values, `deciding` decides purely, `remembering` is what this process knows from earlier; `surveying`, `root`,
`fetching`, `scrubbing` and `reporting` act, and `running` joins them.
"""
