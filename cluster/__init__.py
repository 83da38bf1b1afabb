"""The node cache as a system of Kubernetes: models are declared once, and are on the right nodes before pods come.

`resources` are the kinds, `planning` decides purely, `client` speaks to the API server, `agent` runs on each node and
`controller` once in a cluster.
"""
