"""The kinds of `weightlift.dev/v1alpha1`, as types: the code reads and writes them, and their CRDs are made from them.

A CachePool says where models lie, a ModelCache says which model, a CacheArtifact what it is, and a NodeCache says what one node
shall have and has.
"""

from __future__ import annotations

from cluster.resources.artifact import CACHE_ARTIFACT as CACHE_ARTIFACT
from cluster.resources.artifact import CacheArtifactSpec as CacheArtifactSpec
from cluster.resources.conditions import Condition as Condition
from cluster.resources.conditions import Status as Status
from cluster.resources.kinds import Kind as Kind
from cluster.resources.kinds import Metadata as Metadata
from cluster.resources.kinds import Resource as Resource
from cluster.resources.model import MODEL_CACHE as MODEL_CACHE
from cluster.resources.model import Copies as Copies
from cluster.resources.model import FailedNode as FailedNode
from cluster.resources.model import Found as Found
from cluster.resources.model import ModelCacheSpec as ModelCacheSpec
from cluster.resources.model import ModelCacheStatus as ModelCacheStatus
from cluster.resources.node import COPIES as COPIES
from cluster.resources.node import NODE_CACHE as NODE_CACHE
from cluster.resources.node import Entry as Entry
from cluster.resources.node import Medium as Medium
from cluster.resources.node import NodeCacheSpec as NodeCacheSpec
from cluster.resources.node import NodeCacheStatus as NodeCacheStatus
from cluster.resources.node import Observed as Observed
from cluster.resources.node import Peers as Peers
from cluster.resources.node import Phase as Phase
from cluster.resources.node import Warm as Warm
from cluster.resources.pool import CACHE_POOL as CACHE_POOL
from cluster.resources.pool import CachePoolSpec as CachePoolSpec
from cluster.resources.pool import CachePoolStatus as CachePoolStatus
from cluster.resources.selectors import LabelSelector as LabelSelector
from cluster.resources.selectors import Requirement as Requirement
from cluster.resources.wire import decoded as decoded
from cluster.resources.wire import encoded as encoded
from cluster.resources.wire import merge_patch as merge_patch
from cluster.resources.wire import patched as patched
