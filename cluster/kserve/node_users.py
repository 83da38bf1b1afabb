"""Asks the caches of a node's models which services use them: each by its name, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from cluster.client import Api, ApiError, Missing, endpoint_of
from cluster.kserve.agent import Artifact
from cluster.kserve.holding import Answer, Standing, asked, standing
from cluster.kserve.kinds import LOCAL_MODEL_CACHE, LOCAL_MODEL_NAMESPACE_CACHE
from cluster.mappings import only
from cluster.resources import Observed
from fetcher.errors import ConfigurationError, FetchError


class Users:
    """What is known of the users of a node's models. `on_answer` is called when there is more, `on_problem` gets why not."""

    def __init__(
        self, api: Api, *, recheck: float, on_answer: Callable[[], None], on_problem: Callable[[FetchError], None]
    ) -> None:
        self._api = api
        self._recheck = recheck
        self._on_answer = on_answer
        self._on_problem = on_problem
        self._answers: Mapping[str, Answer] = {}
        self._asking: asyncio.Task[None] | None = None

    def standing(self, wanted: Collection[Artifact], observed: Mapping[str, Observed], lying: Collection[str]) -> Standing:
        """Return what makes no room for others."""
        return standing(wanted, observed, lying, self._answers, now=time.monotonic())

    def ask(self, wanted: Collection[Artifact], observed: Mapping[str, Observed], lying: Collection[str]) -> None:
        """Ask about what may have to make room, unless that is known or under way."""
        if self._asking is not None and not self._asking.done():
            return
        self._answers = only(self._answers, {each.key for each in wanted})
        due = asked(wanted, observed, lying, self._answers, now=time.monotonic(), recheck=self._recheck)
        if due:
            self._asking = asyncio.ensure_future(self._ask(due))

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking

    async def _ask(self, artifacts: Collection[Artifact]) -> None:
        """Ask about each. Who could not be asked stays unknown, and is asked by a later look."""
        for each in artifacts:
            try:
                used = await self._is_used(each)
            except FetchError as error:
                self._on_problem(error)
                if isinstance(error, ApiError) and error.retryable:  # it does not answer at all
                    return
            else:
                self._answers = {**self._answers, each.key: Answer(used, time.monotonic())}
                self._on_answer()

    async def _is_used(self, artifact: Artifact) -> bool:
        """Whether a service uses one of its caches. One that is gone has none. Raises ApiError, ConfigurationError."""
        for namespace, name in artifact.caches:
            kind = LOCAL_MODEL_NAMESPACE_CACHE if namespace else LOCAL_MODEL_CACHE
            endpoint = endpoint_of(kind)
            try:
                status = kind.read(await self._api.get(endpoint, name, namespace, cached=True)).status
            except Missing:
                continue
            except ValueError as error:
                what = endpoint.named(name, namespace)
                raise ConfigurationError(f"the status of {what} cannot be read: {error}; its model makes no room") from None
            if status.inference_services or status.llm_inference_services:
                return True
        return False
