"""Asks the sources of ModelCaches: several at a time, each with its own credential, or with none."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cluster.asking import listed
from cluster.client import Api, Unavailable
from cluster.controller.asking import (
    LOOK_FAILED,
    Asked,
    Question,
    answered,
    confirmed,
    must_ask,
    refused,
    remembered,
    unchanged,
)
from cluster.controller.world import Name, Resolution, World
from cluster.credentials import access_of
from cluster.names import agents_of
from cluster.reaching import reach_of
from cluster.secrets import SecretData, secret_name, secret_of
from fetcher.errors import FetchError

_AT_ONCE = 8
_RETRY_FOR = 20.0
"""Seconds without progress. Longer waits are ours, so that one bad source holds none of the eight places."""
_PUBLIC = SecretData({}, "")


@dataclass(frozen=True, slots=True)
class Means:
    """How sources are reached: `environ` has proxies and authorities, never credentials. `namespace` and `account` are ours.

    `allow_loopback`: also sources on this machine.
    """

    environ: Mapping[str, str]
    allow_loopback: bool
    namespace: str
    account: str


class Resolver:
    """The answers of all sources. `on_answer` is called after each new one, on the event loop."""

    def __init__(self, api: Api, means: Means, *, on_answer: Callable[[Name, Resolution], None]) -> None:
        self._api = api
        self._means = means
        self._on_answer = on_answer
        self._asked: dict[Name, Asked] = {}
        self._questions: Mapping[Name, Question] = {}
        self._running: dict[Name, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    @property
    def resolutions(self) -> dict[Name, Resolution]:
        """The present answers."""
        return {name: each.resolution for name, each in self._asked.items()}

    def recall(self, world: World, questions: Mapping[Name, Question]) -> None:
        """Take answers of an earlier controller from ModelCaches, and those that a changed specification does not touch."""
        for name, question in questions.items():
            known = self._asked.get(name)
            if known is not None and known.uid != question.uid:  # another object of the same name
                known = None
                del self._asked[name]
            if known is None:
                known = remembered(world, name, question)
            elif known.intent == question.intent:
                known = confirmed(known, question)
            if known is not None:
                self._asked[name] = known

    def ask(self, questions: Mapping[Name, Question]) -> None:
        """Begin to ask what is due, and forget what is no longer asked for."""
        self._questions, now = questions, time.monotonic()
        for name in self._asked.keys() - questions.keys():
            del self._asked[name]
        for name, question in questions.items():
            if name not in self._running and self._is_due(self._asked.get(name), question, now):
                task = asyncio.ensure_future(self._answer(name, question))
                self._running[name] = task
                task.add_done_callback(lambda task, name=name: self._ended(name, task))  # type: ignore[misc]

    @property
    def next_due(self) -> float:
        """When the next look is due, by the monotonic clock."""
        return min((each.due for name, each in self._asked.items() if name not in self._running), default=math.inf)

    async def aclose(self) -> None:
        """Stop all questions."""
        for task in tuple(self._running.values()):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running.values())

    def _is_due(self, asked: Asked | None, question: Question, now: float) -> bool:
        if asked is None or now >= asked.due:
            return True
        return not asked.resolution.reason and must_ask(asked, question, asked.version, now)

    def _ended(self, name: Name, task: asyncio.Task[None]) -> None:
        self._running.pop(name, None)
        if not task.cancelled():
            task.result()

    async def _answer(self, name: Name, question: Question) -> None:
        async with self._places:
            before = self._asked.get(name, Asked(Resolution(), question.uid))
            after = await self._look(name, question, before)
        if name not in self._questions:
            return
        self._asked[name] = after
        if after.resolution != before.resolution:
            self._on_answer(name, after.resolution)

    async def _look(self, name: Name, question: Question, before: Asked) -> Asked:
        secret, by_source = None, False
        try:
            secret = await self._secret(name, question)
            if not must_ask(before, question, secret.version, time.monotonic()):
                return unchanged(before, question, secret.version, time.monotonic())
            by_source = True
            return await self._resolve(question, secret)
        except Unavailable:  # the API server says nothing about the Secret
            return replace(before, due=time.monotonic() + LOOK_FAILED)
        except FetchError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - what one source sends must not stop the models of others
            problem = FetchError(f"asking the source ended in a {type(error).__name__}; this is a bug, please report it")
        version = secret.version if secret is not None else None
        return refused(before, question, problem, version=version, now=time.monotonic(), by_source=by_source)

    async def _secret(self, name: Name, question: Question) -> SecretData:
        wanted = secret_name(question.auth)
        if wanted is None:
            return _PUBLIC
        here = self._means.namespace
        agents = ((here, agents_of(question.pool)),) if question.pool is not None else ()
        accounts = ((here, self._means.account), *agents)
        return await secret_of(self._api, name[0], wanted, accounts)

    async def _resolve(self, question: Question, secret: SecretData) -> Asked:
        access = access_of(question.ref.uri, question.auth, secret.values, allowed=question.allowed)
        means = self._means
        reach = reach_of(question.ref.uri, access, question.allowed, means.environ, allow_loopback=means.allow_loopback)
        answer = await listed(
            question.ref,
            access,
            means.environ,
            retry_for=_RETRY_FOR,
            require=question.require,
            reach=reach,
            pin=question.pin,
        )
        revision = answer.listing.revision
        return answered(question, answer.chosen, revision=revision, version=secret.version, now=time.monotonic())
