"""The text of docs/controller.md, made from the code. `python -m docs.generator` writes the file."""

from __future__ import annotations

from cluster.controller.budget import BURST, RATE
from cluster.controller.figures import Figures, metrics_of
from cluster.controller.options import OPTIONS
from cluster.controller.running import TICK
from cluster.controller.writing import REFUSED_FOR
from cluster.resources.model import MOST_FAILED
from cluster.stores import KEYS
from fetcher.command.parser import metrics_table, section

_INTRODUCTION = f"""\
# `weightlift-controller`

One controller leads in a cluster; others wait, and take over within 20 seconds. It asks the source of each ModelCache once,
with that ModelCache's own credential, pins the answer, and writes into the NodeCache of each node what it shall have. For
pods it makes a claim with the ModelCache's name, and a volume. For each CachePool it makes a DaemonSet of agents.
[Run it on a cluster](cluster.md) says how to use it.

What is missing is not unknown: nothing is decided before all lists are complete, nothing is written while one of our CRDs is
missing or being removed, and what depends on an object that cannot be read stays as it is. Only objects with the label
`app.kubernetes.io/managed-by: weightlift-controller` are changed or removed, each by its UID. Our kinds carry no finalizers.

This page is generated from the code by `python -m docs.generator`. Do not edit it.

## Conditions of a ModelCache

Each condition has `observedGeneration`, a reason word and a sentence. Each change of one is an Event. At most {MOST_FAILED}
failed nodes are named.

| condition | True means |
|---|---|
| `Resolved` | the source has answered; `status.artifact` is what every node fetches |
| `Progressing` | copies are missing, and nodes fetch or wait for their turn |
| `Ready` | at least `minReady` copies are complete |
| `Degraded` | something needs a person; its reason is that of the source, of most failed nodes, or one of those below |
| `CapacityExceeded` | nodes lack room; the sentence has the numbers of one of them |
| `RevisionConflict` | an older ModelCache has another revision in the same directory of the pool |
| `Verified` | a copy is ready, and every file was compared with a published digest |

| reason | what to do |
|---|---|
| `PoolMissing` | make the CachePool, or name another one |
| `NamespaceNotSelected` | the pool's owner selects the namespace in `namespaceSelector` |
| `SourceNotAllowed` | the pool's owner adds a prefix to `allowedSources`; local names and metadata services are never allowed |
| `SecretMissing`, `SecretForbidden` | create the Secret; the message has the lines that allow it to be read |
| `RevisionConflict` | name a revision in `spec.source`, which gives it a directory of its own |
| `ClaimRefused` | somebody else has a claim or volume of this name; rename one |
| `InUse` | nothing: pods still use the former artifact, and the claim changes once they have ended |
| `TooFewNodes`, `NoNodes` | look at the pool's agents: fewer of them report than `minReady` |
| any other | [Troubleshooting](errors.md): it is the source's, or the agents' |

## Conditions of a CachePool

| condition | reasons |
|---|---|
| `Ready` | `Ready`; `NoNodes`, `AgentsMissing`, `NotOurs`, `DaemonSetRefused`, or what an agent says of its root |
| `Overlap` | `Overlap`: an older pool selects the same nodes and has them |

## How a model spreads

At most `maxFetching` nodes of a pool may fetch one model at a time. A node keeps its turn until its copy is complete, so what
fails everywhere is asked for by a few nodes only. If a copy is complete somewhere, a node whose fetch fails gives its turn
away once.
Nodes without room take no turn from others, and nodes with pods that wait come first. With `mode: Count`, complete copies
stay where they are; others are spread by a hash.

At most {RATE / 1e6:.0f} MB of objects is written in a second on average, and {BURST / 1e6:.0f} MB at once after a rest. The
controller decides once in a second at most (with 1,000 nodes once in ten seconds), and every {TICK:.0f} seconds if nothing
changes. What the API server refuses is tried again after {REFUSED_FOR:.0f} seconds. With more than 100 nodes the NodeCache
tells agents to report less often, so that all nodes together write some ten statuses in a second, and mere turns are given
out as rarely.

## Keys of a Secret

`auth.secretKeyRef` names one key, a token for the Hub or a web server. `auth.secretRef` names a Secret of which these keys are
read, and no others. Nothing of the process is used: no environment, files, metadata services or programs. The address of an
S3 or Azure store in a Secret must be below one of the pool's `allowedSources`.

| source | keys |
|---|---|
"""
_METRICS = """
## Metrics

`/metrics`, `/healthz` and `/readyz` are served at `--metrics-port`. No metric names a model, a source or a node.
`/readyz` is 503 until the controller has seen the whole cluster, and then 200, also while another one leads. An API server that
goes away changes nothing.
"""


def reference() -> str:
    """Return the whole page as Markdown."""
    named = {"https": "`https://`, `http://`", "az": "`az://`, addresses of Azure Blob Storage"}
    keys = [
        f"| {named.get(store, f'`{store}://`')} | {', '.join(f'`{key}`' for key in each)} |" for store, each in KEYS.items()
    ]
    options = section("weightlift-controller", "the flags and their variables", OPTIONS)
    metrics = metrics_table(metrics_of(Figures(), leads=True))
    return "\n".join([_INTRODUCTION + "\n".join(keys), *options, _METRICS, *metrics]) + "\n"
