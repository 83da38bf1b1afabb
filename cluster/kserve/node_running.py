"""A node's LocalModelNode at work beside the agent: it says what the agent shall do, reports what it does, and tidies up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from cluster.binding import KSERVE_POLICY, refuse_unbound_agents
from cluster.client import Api, ApiAccess, ApiError, Watched, endpoint_of
from cluster.client.patience import patiently
from cluster.kserve import knowing
from cluster.kserve.agent import Artifact, Identity, Looks, artifacts, look, removals, status_patch, statuses
from cluster.kserve.kinds import LOCAL_MODEL_NODE
from cluster.kserve.knowing import Knowledge
from cluster.kserve.node_api import LocalModelApi
from cluster.kserve.node_asking import Asking, ask
from cluster.kserve.node_ground import Ground, GroundSurveyor
from cluster.kserve.node_surroundings import Surroundings
from cluster.kserve.node_users import Users
from cluster.kserve.secrets import credential_of
from cluster.kserve.translating import lies_elsewhere, spec_of
from cluster.kserve.world import LocalNode
from cluster.resources import NodeCacheStatus, Observed
from cluster.secrets import SecretData
from cluster.together import is_set_within
from fetcher.errors import FetchError
from fetcher.uncancelled import run_uncancelled

LOCAL_NODES = endpoint_of(LOCAL_MODEL_NODE)
_AT_ONCE = 4
_OTHER_REVISION = "OtherRevision"


@dataclass(frozen=True, slots=True)
class Config:
    """How the node runs. `namespace`: KServe's own. Times in seconds. `asking` without the namespace of downloads.

    `unbound`: whether it runs also where any agent may write the status of any node.
    """

    node: str
    root: Path
    namespace: str
    asking: Asking
    survey_interval: float
    recheck_interval: float
    unbound: bool = False


class Node:
    """One node. `api` is what its agent uses. `on_note` gets a subject and a sentence, `on_problem` a reason and a sentence."""

    def __init__(
        self,
        access: ApiAccess,
        plain: Api,
        config: Config,
        *,
        manager: str,
        on_note: Callable[[str, str], None],
        on_problem: Callable[[str, str], None],
    ) -> None:
        self._plain = plain
        self._config = config
        self._on_note = on_note
        self._on_problem = on_problem
        self.api = LocalModelApi(access, manager=manager, node=config.node, tell=self._told, secret=self._secret)
        self._changed = asyncio.Event()
        self._watched: Watched[LocalNode] = Watched(
            plain,
            LOCAL_NODES,
            LOCAL_MODEL_NODE.read,
            on_change=self._changed.set,
            on_problem=self._refused,
            fields=f"metadata.name={config.node}",
        )
        self._surveyor = GroundSurveyor(config.root)
        self._around = Surroundings(
            plain,
            config.namespace,
            on_refusal=self._refused,
            on_unreadable=lambda subject, text: self._say(subject, "Configuration", text),
        )
        self._users = Users(plain, recheck=config.recheck_interval, on_answer=self._changed.set, on_problem=self._refused)
        self._ground = Ground()
        self._surveyed_at = float("-inf")
        self._known = Knowledge()
        self._looks = Looks()
        self._observed: dict[str, Observed] = {}
        self._asked: dict[knowing.Question, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._said: dict[str, str] = {}
        self._remembered = False

    async def run(self) -> None:
        """Run until cancelled.

        Raises KServeAgentPresent if KServe's agent is there, or appears; ConfigurationError where agents are not bound to their
        nodes.
        """
        if not self._config.unbound:
            await patiently(partial(refuse_unbound_agents, self._plain, KSERVE_POLICY), on_problem=self._refused)
        tasks = [asyncio.ensure_future(each) for each in (self._watched.run(), self._looping())]
        try:
            await asyncio.gather(*tasks)
        finally:
            for each in (*tasks, *self._asked.values()):
                each.cancel()
            await asyncio.wait(tasks)
            await self._users.aclose()

    # Looking

    async def _looping(self) -> None:
        await self._watched.synced.wait()
        while True:
            self._changed.clear()
            await self._around.refresh({name for each in self._wanted or () for name in each.groups})
            await self._survey()
            if (wanted := self._wanted) is not None and self._ground.pins is not None:
                self._remember(wanted)
                self._known = knowing.surveyed(self._known, wanted, self._ground.pins)
            self._show()
            self._ask()
            await self._tidy()
            with suppress(ApiError):  # it is told, and the next pass tries again
                await self._report()
            await is_set_within(self._changed, self._config.survey_interval)

    @property
    def _local_node(self) -> LocalNode | None:
        return self._watched.objects.get(("", self._config.node))

    @property
    def _wanted(self) -> tuple[Artifact, ...] | None:
        return artifacts(self._local_node.spec) if self._local_node is not None else None

    async def _survey(self) -> None:
        now = time.monotonic()
        if now - self._surveyed_at < self._config.survey_interval:
            return
        ground = await run_uncancelled(self._surveyor.look)
        if ground is None:  # the agent tells why
            return
        self._surveyed_at, self._ground = now, ground
        local = self._local_node
        uid = local.metadata.uid if local is not None else ""
        self._looks = look(self._looks, self._wanted, uid, ground.names, now=now)

    def _remember(self, wanted: tuple[Artifact, ...]) -> None:
        """Take what an earlier process reported, once: later statuses are our own."""
        if not self._remembered and self._local_node is not None:
            self._remembered = True
            self._known = knowing.remembered(self._known, wanted, self._local_node.status.model_status)

    # Deciding

    def _show(self) -> None:
        """Say to the agent what it shall have. Nothing before the directory and KServe's configuration are known."""
        local, wanted = self._local_node, self._wanted
        if local is None or wanted is None or self._around.options is None or self._ground.pins is None:
            if self._watched.synced.is_set() and local is None:
                self.api.show("", None, {})
            return
        jobs, root = self._around.options.job_namespace, PurePosixPath(self._config.root)
        placed = [each for each in wanted if each.key not in self._misplaced(wanted)]
        groups = self._around.known({name for each in placed for name in each.groups})
        try:
            meant = spec_of(
                placed,
                self._known.pins,
                self._known.answers,
                groups,
                self._users.standing(placed, self._observed, self._ground.lying or ()),
                root=root,
                allowed=self._config.asking.allowed,
                job_namespace=jobs,
            )
        except ValueError as error:
            self._say("limit", "Configuration", f"storageLimit of a node group: {error}")
            return
        places = {(each.fetched_as(self._known.answers).namespace or jobs, each.key): each for each in placed}
        models = {place: (each, each.fetched_as(self._known.answers)) for place, each in places.items()}
        self.api.show(local.metadata.uid, meant, models)

    def _misplaced(self, wanted: tuple[Artifact, ...]) -> frozenset[str]:
        root = PurePosixPath(self._config.root)
        found = frozenset(each.key for each in wanted if lies_elsewhere(each, self._around.groups, root))
        for key in found:
            self._say(key, "RootMismatch", f"its node groups have another directory than {root}; pods would not find it there")
        return found

    # Asking

    def _ask(self) -> None:
        wanted, lying = self._wanted, self._ground.lying
        if wanted is None or lying is None or self._around.options is None:
            return
        placed = [each for each in wanted if each.key not in self._misplaced(wanted)]
        self._users.ask(placed, self._observed, lying)
        for artifact, identity in knowing.questions(
            self._known, placed, lying, now=time.monotonic(), recheck=self._config.recheck_interval
        ):
            question = (artifact.key, identity)
            if question not in self._asked:
                self._asked[question] = asyncio.ensure_future(self._answer(artifact, identity))

    async def _answer(self, artifact: Artifact, identity: Identity) -> None:
        question = (artifact.key, identity)
        try:
            async with self._places:
                pin = await ask(self._plain, artifact, identity, self._asking)
            self._known = knowing.answered(self._known, question, pin)
        except FetchError as error:
            now = time.monotonic()
            self._known = knowing.failed(self._known, question, error, now=now, recheck=self._config.recheck_interval)
            self._say(artifact.key, error.reason, error.message)
        finally:
            self._asked.pop(question, None)
            self._changed.set()

    @property
    def _asking(self) -> Asking:
        how = self._config.asking
        options = self._around.options
        jobs = options.job_namespace if options is not None else how.job_namespace
        return Asking(how.environ, how.allowed, how.account, jobs, how.allow_loopback, how.retry_for)

    async def _secret(self, artifact: Artifact, identity: Identity) -> SecretData | None:
        how = self._asking
        return await credential_of(self._plain, identity, identity.namespace or how.job_namespace, [how.account])

    # Telling and tidying

    async def _told(self, status: NodeCacheStatus) -> None:
        """Take a status of the agent, and report it. Raises ApiError."""
        self._observed = dict(status.artifacts)
        self._known = knowing.outdated(
            self._known, [key for key, each in status.artifacts.items() if each.reason == _OTHER_REVISION]
        )
        self._changed.set()  # another pass asks what follows
        for condition in status.conditions:
            if condition.type == "Ready" and condition.status == "False":
                self._say("root", condition.reason, condition.message)
        await self._report()

    async def _report(self) -> None:
        local, wanted = self._local_node, self._wanted
        if local is None or wanted is None or self._ground.lying is None:
            return
        observed = {key: each.phase for key, each in self._observed.items()}
        misplaced = self._misplaced(wanted)
        phases = knowing.phases(self._known, wanted, observed, misplaced)
        found: Mapping[str, str] = statuses(wanted, phases, self._ground.lying, self._known.answers)
        before = local.status.model_status
        # Of what the agent has not looked at yet, the last status of an earlier process stays.
        unknown = {name for each in wanted if each.key not in phases for name in each.askers}
        now = {name: before.get(name) or status if name in unknown else status for name, status in found.items()}
        patch = status_patch(local.status, now)  # type: ignore[arg-type]  # of both the words are KServe's
        if patch is not None:
            await self._plain.merge(LOCAL_NODES, self._config.node, "", patch, subresource="status")

    async def _tidy(self) -> None:
        if self._around.options is None:  # whether KServe's own agent is there is not known yet
            return
        busy = {key for key, each in self._observed.items() if each.phase == "Fetching"}
        for name in removals(self._looks, busy=busy, now=time.monotonic()):
            try:
                await run_uncancelled(partial(self._surveyor.remove, name))
            except FetchError as error:
                self._say(name, error.reason, error.message)
            else:
                self._on_note(name, "removed: the LocalModelNode does not want it")
                self._surveyed_at = float("-inf")

    def _refused(self, error: FetchError) -> None:
        self._say("API server", error.reason, str(error))

    def _say(self, subject: str, reason: str, message: str) -> None:
        """Tell a problem once, until it changes."""
        if self._said.get(subject) != message:
            self._said[subject] = message
            self._on_problem(reason, message if subject in message else f"{subject}: {message}")
