"""The text of docs/agent.md, made from the code. `python -m docs.generator` writes the file."""

from __future__ import annotations

from cluster.agent.counting import Counts
from cluster.agent.options import OPTIONS
from fetcher.command.parser import metrics_table, section

_INTRODUCTION = """\
# `weightlift-agent`

One agent runs on each node of a CachePool, in the DaemonSet that the controller makes. It reads the NodeCache with its
node's name, fetches what stands there, and writes its status. It never lists Secrets, and asks a Secret by its name only to
fetch what needs it.

Nothing is removed because something is missing. Only what this process fetched for an entry that it then saw go, in two looks
at least 30 seconds apart, is removed, after `--orphan-grace`. What pods fetched and what lay there before stays until a fetch
needs its room. Deleting NodeCaches or our CRDs removes no byte.

A fetch sees proxies and certificate authorities of the agent's environment, and none of its tokens.

This page is generated from the code by `python -m docs.generator`. Do not edit it.

## What a status says

| phase | meaning |
|---|---|
| `Queued` | waits for the controller (`Turn`), for room (`Capacity`), or for other models of this node |
| `Fetching` | is being fetched; another revision that lies there stays readable |
| `Waiting` | failed with a [reason](errors.md) that may pass; tried again after 30 seconds, later up to 10 minutes |
| `Failed` | failed for good; tried again when its entry, ModelCache or Secret changes, and after an hour |
| `Warming` | complete, pods may use it, and being read into memory |
| `Ready` | complete at the wanted revision and listing; `warm` says how it is kept in memory |
| `Damaged` | a scrub found bytes that differ; they are fetched again, and no others |
| `Evicted` | made room for another model; comes back when there is room without evicting, or when a pod needs it |

| reason | what to do |
|---|---|
| `CapacityExceeded` | raise the pool's `limit`, or select fewer files: the model does not fit even alone |
| `Capacity` | wait, or raise the `limit`: what is there is in use, held, or was used within `--min-idle` |
| `NotAMountPoint` | mount a filesystem at the pool's `root`, or set `allowRootFilesystem` |
| `MemoryExceeded` | raise `memory.budget` of the pool, or make fewer models warm; the copy stays usable from its disk |
| `NotLocked` | set `memory.allowLocking` in the pool; until then what is reclaimed is read again |
| `NotResident` | raise the agent's memory: pages are reclaimed as fast as they are read |
| `MediumMismatch` | mount a tmpfs at the `root` if the pool's medium is Memory, else a disk, or change `medium` |
| `RootMissing` | make the directory on the node |
| `OverLimit` | raise the `limit` or remove models; nothing is evicted until a fetch needs room |
| `OtherRevision` | nothing: the source moved on, and the controller resolves it again |
| `SecretMissing`, `SecretForbidden` | create the Secret; the message has the lines that allow it to be read |
| `SourceNotAllowed` | ask for the prefix in the pool's `allowedSources` |

A `Ready` copy with a reason is usable, and not as warm as its entry says. What is warm is checked every `--warm-interval`, and
read again when it was reclaimed, at most four times an hour.

`OverLimit` is a condition of its own. The other words about the root are the reason of the condition `Ready`.

SIGTERM stops a fetch resumably. SIGUSR1 makes a scrub of everything due."""
_METRICS = """
## Metrics

`/metrics`, `/healthz` and `/readyz` are served at `--metrics-port`. No metric names a model, a source or a node.
`/readyz` is 200 once the agent has seen its NodeCache and can use its root, and else 503 with what is missing. An API server
that goes away changes nothing.
"""


def reference() -> str:
    """Return the whole page as Markdown."""
    options = section("weightlift-agent", "the flags and their variables", OPTIONS)
    return "\n".join([_INTRODUCTION, *options, _METRICS, *metrics_table(Counts().metrics())]) + "\n"
