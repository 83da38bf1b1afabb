"""What a node reads of KServe now and then: configuration, the node groups of its models, whether KServe's agent is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from cluster.client import Api, ApiError, Missing, endpoint_of
from cluster.client.endpoints import CONFIG_MAPS
from cluster.kserve.kinds import LOCAL_MODEL_NODE_GROUP
from cluster.kserve.names import CONFIG_MAP
from cluster.kserve.presence import refuse_beside_kserves_agent
from cluster.kserve.reading import read_options
from cluster.kserve.world import Group, Options

GROUPS = endpoint_of(LOCAL_MODEL_NODE_GROUP)
_REFRESH = 60.0
"""Seconds between two looks."""


class Surroundings:
    """`options` are None until they are known. `on_refusal` gets what the API server refuses, `on_unreadable` a subject and a
    sentence."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        *,
        on_refusal: Callable[[ApiError], None],
        on_unreadable: Callable[[str, str], None],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._on_refusal = on_refusal
        self._on_unreadable = on_unreadable
        self._looked_at = float("-inf")
        self.options: Options | None = None
        self.groups: dict[str, Group] = {}

    async def refresh(self, names: AbstractSet[str]) -> None:
        """Look again, if it is time or a group of these `names` is not known. What fails leaves what is known.

        Raises KServeAgentPresent.
        """
        now = time.monotonic()
        if self.options is not None and now - self._looked_at < _REFRESH and names <= self.groups.keys():
            return
        self._looked_at = now
        try:
            await refuse_beside_kserves_agent(self._api, self._namespace)
            self.options = read_options(await self._api.get(CONFIG_MAPS, CONFIG_MAP, self._namespace))
            for name in names:
                await self._refresh_group(name)
        except ApiError as error:
            self._on_refusal(error)
        except ValueError as error:
            self._on_unreadable("configuration", f"ConfigMap {self._namespace}/{CONFIG_MAP}: {error}")

    def known(self, names: Iterable[str]) -> list[Group]:
        """Return the groups of these names that are known, in order."""
        return [self.groups[name] for name in sorted(names) if name in self.groups]

    async def _refresh_group(self, name: str) -> None:
        try:
            self.groups[name] = LOCAL_MODEL_NODE_GROUP.read(await self._api.get(GROUPS, name))
        except Missing:  # its limit stays: a group that was deleted says nothing
            return
        except ValueError as error:
            self._on_unreadable(name, f"LocalModelNodeGroup {name} cannot be read: {error}")
