"""`python -m loader.cli.reference > docs/loader.md`: the reference, made from the options themselves."""

from __future__ import annotations

import sys

from fetcher.command.parser import metrics_table, section
from loader.cli.metrics import all_load_metrics, hold_metrics
from loader.cli.parser import COMMANDS, POSITIONAL
from loader.residency.holding import State

_INTRODUCTION = """\
# `loader` on the command line

Made by `python -m loader.cli.reference > docs/loader.md`; do not edit. A flag wins over its variable.

PATH is a directory with a checkpoint (`fetcher fetch` prints it), an index file, or files. Of a directory what lies beside the
shards comes first, as engines read config and tokenizer first. The same weights in other formats (`.bin`, `.gguf`), variants
(`model.fp16.safetensors`) beside the weights without one, and subdirectories are left alone. A directory without weights of
its own, a pipeline with `model_index.json`, and a Hub cache are the directories below, up to 8 levels deep. The first part of a
split GGUF brings the others, by name or, if it was renamed, by the header. A missing part, a truncated file or a Git LFS
pointer is an error, except for `drop`.

Results go to stdout, everything else to stderr, whose last line on failure is one sentence that
begins with a reason word.

| exit code | meaning |
|---|---|
| 0 | done, or there was nothing to do |
| 64 | `Usage`: the command itself is wrong |
| 65 | `MalformedCheckpoint`, `DigestMismatch`: what is in a file can't be trusted |
| 66 | `NotFound`, `NotReadable`: a file is not there, or this user may not read it |
| 73 | `TooLarge`, `OutOfSpace`, `CannotWrite`: more than memory or disk holds, told before the first byte |
| 74 | `IOError`: what the disk refuses, or a mount whose server is gone |
| 75 | `NotResident`, `FileReplaced`: another try may help |
| 78 | `Configuration`: a variable, or a port that can't be had; `PagesDropped`: the mount keeps no pages |
| 128+n | signal n |"""

_METRICS = """
## Metrics

`warm`, `load` and `copy` publish those of the first table: at `/metrics` while they run, as Prometheus text or OpenMetrics,
whichever is asked for, and in a file that stays and says how they ended. `hold` publishes those of the second while it runs.
Several commands whose files one node_exporter collects need a `--metrics-label` each.
"""

_NOTES = {
    "warm": """\
```
loader warm /models/5df9d7cea3b612c3
7 files, 15.0 GiB: 100 % in memory (was 3.1 %; told by mincore); 14.5 GiB read in 13 s, 1.1 GiB/s, by populate
```

Reads in windows of 64 MiB, a few at a time, in the order in which an engine reads; skips what is there; then looks whether it
stayed. `told by`: `mincore` and `faults` have seen every page, `sampled` some; `unknown` is said where nothing tells, and never
100 %. Pages are charged to the cgroup that reads them first: an init container needs a memory limit above the checkpoint, else
this is refused (73), or with `--partial` only the beginning is warmed. Loaders that bypass the page cache gain nothing unless
told not to: `RUNAI_STREAMER_FS_STRATEGY=io_uring_buffered,sync_buffered`, `FASTSAFETENSORS_ODIRECT=0`,
`INSTANTTENSOR_BACKEND=BUFFERED`.

With `--rank R --world-size W` each of the W processes on a host warms its own part, and all together everything.""",
    "load": """\
```
loader load /models/5df9d7cea3b612c3
291 tensors, 15.0 GiB in 10 s, 1.5 GiB/s, the first after 0.05 s; direct: ext4 is local, little is known ...
```

A rehearsal of an engine's start: every tensor is read in order, at most `--window` ahead, and let go of. Says which strategy
was taken and why: `buffered` (large reads through the page cache), `direct` (past it, where a local disk is cold and nobody
else reads the files), `mmap` (where at least half is resident on a local disk, or all is memory anyway). A damaged, replaced
or unreadable file ends it with the exit code that says so. With `--rank R --world-size W` each of W processes reads its own
part.""",
    "status": """\
```
loader status /models/5df9d7cea3b612c3
  100 % of    4.7 GiB  mincore    /models/5df9d7cea3b612c3/model-00001-of-00004.safetensors
 31.4 % of    4.6 GiB  mincore    /models/5df9d7cea3b612c3/model-00002-of-00004.safetensors
...
strategy    buffered: 82 % is in the page cache, which O_DIRECT would not use
```""",
    "drop": """\
```
loader drop /models/5df9d7cea3b612c3
stayed: 100 % of /models/5df9d7cea3b612c3/config.json: mapped by python3 (PID 4711)
7 files: 0.1 % of 15.0 GiB in memory (was 100 %); told by mincore
```

What is dirty is written back first. Pages that a process has mapped or locked stay; that is no failure.""",
    "hold": """\
```
loader hold /models/5df9d7cea3b612c3 --metrics-port 9090        # readinessProbe: httpGet {path: /ready, port: 9090}
loader hold /models/5df9d7cea3b612c3 --ready-file /run/ready    # readinessProbe: exec {command: [cat, /run/ready]}
```

Warms, then locks (mlock), which needs CAP_IPC_LOCK or RLIMIT_MEMLOCK and memory within the cgroup's limit. What may not be
locked is looked at every `--interval` and read again when it was reclaimed; looking takes 5 % of a processor at most. Ready
(`/ready` answers 200, the ready file is there, one line on stdout) is only what is known to be in memory completely. A
checkpoint that is replaced under its path is followed: unready, until the new one is there. A signal ends it with 0, or with
128+n if nothing was ready yet.

The port (`--metrics-port`) answers at `/metrics`, `/ready` and `/healthz`. It is open to all unless `--metrics-address` says
where, since the kubelet's probes come to the pod's address; it tells counts of bytes and no names. The metrics file goes when
it ends.""",
    "copy": """\
```
loader copy /models/5df9d7cea3b612c3 /dev/shm/model
/dev/shm/model
```

DST itself becomes the copy, by one rename of what was staged beside it (`.model.copying`); a former copy is replaced,
anything else that is there is not. The files are those of SRC's manifest (also of a Hub cache's snapshot that `fetcher`
made), and each chunk is compared with it while it is copied: a damaged one is an error that names file and chunk, and
nothing becomes visible. Without a manifest all but hidden files are copied, only sizes are compared, and it says `not
verified`. A DST that is complete is a hit. A file of a former copy that is still right is linked into the new one: it is
not copied, and takes no space. The manifest's chunks tell, else `.fetcher/copy.json`, which each copy has: the source's
device, inode, size and time of each file. A file with several names, such as a blob of a Hub cache, is copied once. Space,
inodes and, for tmpfs, the memory left are compared before the first byte. Two copies to one DST wait for each other; a
killed one leaves its staging, which the next one to that DST removes; where space is short, the error names what was left
beside DST. On xfs and btrfs blocks are shared and checked. On tmpfs the memory is charged to the one who copies: in a pod,
an `emptyDir` of medium Memory counts against its limit.""",
}


def reference() -> str:
    """The whole document, in Markdown."""
    lines = [_INTRODUCTION]
    for name, (help_text, options) in COMMANDS.items():
        lines += [*section(f"loader {name} {POSITIONAL[name]}", help_text, options), "", _NOTES[name]]
    tables = [*metrics_table(all_load_metrics()), "", *metrics_table(hold_metrics(State()))]
    return "\n".join([*lines, _METRICS, *tables]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
