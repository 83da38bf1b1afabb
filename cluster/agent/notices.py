"""What the agent tells people in its log: each decision, and each problem once until it changes."""

from __future__ import annotations

from cluster.agent.states import Problem
from cluster.client import ApiError
from fetcher.events import Noted, Subscriber, Warned


class Notices:
    """Tells `on_event`."""

    def __init__(self, on_event: Subscriber) -> None:
        self._on_event = on_event
        self._said: dict[str, Problem | None] = {}

    def note(self, key: str, message: str) -> None:
        """Tell a decision about the artifact `key`."""
        self._on_event(Noted(key, message))

    def problem(self, subject: str, problem: Problem | None) -> None:
        """Tell the problem of `subject`, if it is another one than before; None: it has none any more."""
        if self._said.get(subject) != problem:
            self._said[subject] = problem
            if problem is not None:
                self._on_event(Warned(problem.reason, problem.message))

    def api(self, error: ApiError) -> None:
        """Tell that the API server refused something."""
        self.problem("API server", Problem(error.reason, error.message))
