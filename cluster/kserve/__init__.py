"""KServe's local models as another way to say what nodes shall have: its resources, names and statuses, without its faults.

`agent` decides what one node does about its LocalModelNode, `manager` what the cluster does about the caches, `admission` what
a webhook answers. All three are pure. KServe's CRDs belong to KServe: they are never installed by us.
"""
