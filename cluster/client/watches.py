"""Several collections that one decision rests on: watched side by side, and known once each is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from cluster.client.api import Api
from cluster.client.endpoints import Endpoint
from cluster.client.errors import ApiError
from cluster.client.watching import Watched

T = TypeVar("T")


class Watches:
    """Makes the watches of one observer. `on_change` is called after each change, on the event loop."""

    def __init__(self, api: Api, *, on_change: Callable[[], None], on_problem: Callable[[ApiError], None]) -> None:
        self._api = api
        self._on_change = on_change
        self._on_problem = on_problem
        self._all: list[Watched[Any]] = []

    def of(
        self,
        endpoint: Endpoint,
        read: Callable[[Mapping[str, Any]], T],
        *,
        on_change: Callable[[], None] | None = None,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
    ) -> Watched[T]:
        """Return one more watch. `on_change`: in the place of that of all."""
        one = Watched(
            self._api,
            endpoint,
            read,
            on_change=on_change or self._on_change,
            on_problem=self._on_problem,
            namespace=namespace,
            labels=labels,
            fields=fields,
        )
        self._all.append(one)
        return one

    def runs(self) -> list[Coroutine[Any, Any, None]]:
        """The watches, which never end by themselves."""
        return [each.run() for each in self._all]

    async def synced(self) -> None:
        """Wait until every list is complete."""
        for each in self._all:
            await each.synced.wait()

    @property
    def is_synced(self) -> bool:
        return all(each.synced.is_set() for each in self._all)


def by_name(watched: Watched[T]) -> dict[str, T]:
    """Return the objects of the whole cluster, which have no namespace, by name."""
    return {name: each for (_, name), each in watched.objects.items()}


def unreadable(watched: Watched[Any]) -> frozenset[str]:
    """Return the names of those of them that cannot be read."""
    return frozenset(name for _, name in watched.unreadable)
