"""Agents as processes, each a node with a root of its own, and a test that plays the controller."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.resources import CACHE_ARTIFACT, NODE_CACHE, CacheArtifactSpec, NodeCacheStatus, Observed, decoded, encoded
from cluster.resources.artifact import content_of, mark_of, name_of
from fetcher.artifact import ArtifactRef, listing_digest
from fetcher.settings import Settings
from fetcher.sources import open_source
from tests.cluster.api import KUBECONFIG, Cluster
from tests.lab.command import end, listening_at, started_command
from tests.lab.waiting import wait_until

AGENT = (sys.executable, "-m", "cluster.agent.main")
QUICK = (
    *("--status-interval", "100ms", "--survey-interval", "300ms", "--recheck-interval", "500ms"),
    *("--min-idle", "0s", "--retry-for", "2s", "--scrub-interval", "24h", "--warm-interval", "100ms"),
)
"""What takes minutes on a cluster takes moments here."""


Entry = tuple[CacheArtifactSpec, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Model:
    """A ModelCache, and what its source lists."""

    name: str
    ref: ArtifactRef
    revision: str | None
    listing_digest: str
    bytes: int

    @property
    def content(self) -> str:
        """What a node reports of a copy that is Ready."""
        return content_of(self.revision, self.listing_digest)

    def wanted(self, namespace: str, *, listing_digest: str | None = None, **entry: Any) -> Entry:
        """An entry of a NodeCache, which is the node's turn unless it says otherwise, and what it is."""
        listing = self.listing_digest if listing_digest is None else listing_digest
        artifact = CacheArtifactSpec("pool", self.ref.key, namespace, self.name, self.bytes, self.revision, listing)
        return artifact, {"mark": mark_of(artifact), "turn": True, **entry}


@dataclass(slots=True)
class Node:
    """One node: its root, and its agent while that runs."""

    name: str
    root: Path
    play: Play
    within: Sequence[str] = ()
    process: subprocess.Popen[str] | None = None
    address: str = ""

    def start(self, *words: str) -> None:
        self.process = started_command(
            (*self.within, *AGENT),
            *("--node", self.name, "--root", self.root, "--namespace", "default", "--kubeconfig", str(KUBECONFIG)),
            *(*QUICK, *self.play.words, *words, "--metrics-port", "0", "--metrics-address", "127.0.0.1"),
        )
        self.address = listening_at(self.process)

    def kill(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None

    def stop(self) -> tuple[int, str]:
        """End the agent in order. Return its exit code and its log."""
        assert self.process is not None
        self.process.terminate()
        _, log = self.process.communicate(timeout=30)
        code, self.process = self.process.returncode, None
        return code, log

    @property
    def status(self) -> NodeCacheStatus:
        return decoded(NodeCacheStatus, self.play.get("nodecache", self.name).get("status") or {})

    def observed(self, model: Model) -> Observed | None:
        return self.status.artifacts.get(model.ref.key)

    def condition(self, kind: str) -> tuple[str, str] | None:
        """The status and the reason of a condition."""
        return next(((each.status, each.reason) for each in self.status.conditions if each.type == kind), None)

    def phase(self, model: Model) -> str:
        """The phase, and the reason after a slash if there is one."""
        observed = self.observed(model)
        return "" if observed is None else "/".join(filter(None, (observed.phase, observed.reason)))

    def becomes(self, model: Model, phase: str, *, timeout: float = 90.0) -> Observed:
        """Wait until the agent reports `phase` of a model."""

        def reported() -> bool:
            assert self.process is None or self.process.poll() is None, self.process.communicate()
            return self.phase(model) == phase

        try:
            wait_until(reported, f"{self.name}: {model.name} is {phase}", timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.observed(model)}, {self.status.conditions}") from None
        observed = self.observed(model)
        assert observed is not None
        return observed

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"weightlift_agent_{name} "))

    def surveys(self, count: int = 3) -> None:
        """Wait until the agent has looked at its root `count` more times."""
        before = self.metric("surveys_total")
        wait_until(lambda: self.metric("surveys_total") >= before + count, "the agent looks at its root")

    def path(self, model: Model) -> Path:
        return self.root / model.ref.key

    def contents(self, model: Model) -> dict[str, bytes]:
        """Every byte of a model."""
        there = self.path(model)
        found = (path for path in there.rglob("*") if path.is_file() and ".fetcher" not in path.parts)
        return {str(path.relative_to(there)): path.read_bytes() for path in found}


@dataclass(slots=True)
class Play:
    """The part of the controller: it writes ModelCaches and NodeCaches of names that only this test has."""

    cluster: Cluster
    directory: Path
    environ: Mapping[str, str]
    words: tuple[str, ...]
    namespace: str = "default"
    mark: str = field(default_factory=lambda: f"agent-{uuid.uuid4().hex[:8]}")
    nodes: list[Node] = field(default_factory=list)
    objects: list[tuple[str, str]] = field(default_factory=list)

    def apply(self, document: dict[str, Any]) -> None:
        document["metadata"].setdefault("labels", {})["weightlift-test"] = self.mark
        document["metadata"]["namespace"] = self.namespace
        assert self.cluster.apply(document) == ""
        self.objects.append((document["kind"].lower(), document["metadata"]["name"]))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        done = self.cluster.run("get", kind, name, "-n", self.namespace, "-o", "json")
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    async def model(self, name: str, uri: str, *, credentials: Any = None, **spec: Any) -> Model:
        """Declare a model, and resolve it as the controller does."""
        ref = ArtifactRef(uri, **spec.pop("source", {}))
        source = open_source(ref, Settings(cache_dir=Path("/nowhere")), self.environ, credentials=credentials)
        try:
            listing = await source.list(await source.resolve())
        finally:
            await source.aclose()
        origin = {"uri": uri, "revision": ref.revision, "include": list(ref.include), "exclude": list(ref.exclude)}
        self.apply(
            {
                "apiVersion": NODE_CACHE.api_version,
                "kind": "ModelCache",
                "metadata": {"name": f"{self.mark}-{name}"},
                "spec": {
                    "source": {field: value for field, value in origin.items() if value},
                    "placement": {"pools": [{"name": "pool"}]},
                    **spec,
                },
            }
        )
        size = sum(file.size or 0 for file in listing.files)
        return Model(f"{self.mark}-{name}", ref, listing.revision, listing_digest(listing.files), size)

    def with_note(self, model: Model) -> dict[str, Any]:
        """A ModelCache whose specification has changed in what does not name other bytes."""
        document = self.get("modelcache", model.name)
        spec = {**document["spec"], "minReady": document["spec"].get("minReady", 1) + 1}
        return {"apiVersion": document["apiVersion"], "kind": "ModelCache", "metadata": {"name": model.name}, "spec": spec}

    def renewed(self, node: Node) -> bool:
        """Whether the agent of a node has ever given a sign of life."""
        lease = f"weightlift-agent.{node.name}"
        done = self.cluster.run("get", "lease", lease, "-n", self.namespace, "-o", "jsonpath={.metadata.labels}")
        return "weightlift.dev/agent" in done.stdout

    def node(self, name: str) -> Node:
        node = Node(f"{self.mark}-{name}", self.directory / name, self)
        node.root.mkdir()
        self.nodes.append(node)
        return node

    def want(self, node: Node, *wanted: Entry, **spec: Any) -> None:
        """Write the specification of a node, after what its entries are."""
        artifacts = [
            {
                "apiVersion": CACHE_ARTIFACT.api_version,
                "kind": CACHE_ARTIFACT.name,
                "metadata": {"name": name_of(each.key, entry["mark"]), "labels": {"weightlift-test": self.mark}},
                "spec": encoded(each),
            }
            for each, entry in wanted
        ]
        if artifacts:
            assert self.cluster.apply({"apiVersion": "v1", "kind": "List", "items": artifacts}) == ""
        defaults = {"pool": "pool", "allowRootFilesystem": True, "minFree": "0", "allowedSources": ["hf://"]}
        self.apply(
            {
                "apiVersion": NODE_CACHE.api_version,
                "kind": "NodeCache",
                "metadata": {"name": node.name},
                "spec": {**defaults, **spec, "artifacts": {each.key: entry for each, entry in wanted}},
            }
        )

    def secret(self, name: str, **values: str) -> None:
        self.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{self.mark}-{name}"}, "stringData": dict(values)}
        )


@contextmanager
def playing(cluster: Cluster, directory: Path, environ: Mapping[str, str], words: Sequence[str]) -> Iterator[Play]:
    """Play the controller until the block ends; then end all agents and remove what was written."""
    play = Play(cluster, directory, environ, tuple(words))
    try:
        yield play
    finally:
        for node in play.nodes:
            node.kill()
            cluster.run("delete", "lease", f"weightlift-agent.{node.name}", "-n", play.namespace, "--ignore-not-found")
        cluster.run("delete", "cacheartifacts", "-l", f"weightlift-test={play.mark}", "--wait=false")
        for kind, name in dict.fromkeys(play.objects):
            cluster.run("delete", kind, name, "-n", play.namespace, "--wait=false", "--ignore-not-found")
