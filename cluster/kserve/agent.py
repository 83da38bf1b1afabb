"""What one node does about its LocalModelNode: what it fetches, what it reports, and which directories it removes. Pure.

A LocalModelNode that is missing says nothing. Only after it was seen, what it does not name is unwanted. Only what two looks,
some time apart, found unwanted is removed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cluster.kserve.kinds import LocalModel, LocalModelNodeSpec, LocalModelNodeStatus, ModelStatus, Storage
from cluster.kserve.names import key_of
from cluster.resources import Phase

APART = 30.0
"""Seconds between the two looks. With a survey each 30 s, what nobody wants is gone within a minute."""
_KEY = re.compile("[0-9a-f]{16}")
_STATUSES: Mapping[Phase, ModelStatus] = {
    "Queued": "ModelDownloadPending",
    "Fetching": "ModelDownloading",
    "Waiting": "ModelDownloadError",  # the last attempt failed; the next one may not. The status has no field for a reason
    "Warming": "ModelDownloaded",
    "Ready": "ModelDownloaded",
    "Failed": "ModelDownloadError",
    "Damaged": "ModelDownloading",  # it is being repaired, and must not count as a copy meanwhile
    "Evicting": "ModelDownloadPending",
    "Evicted": "ModelDownloadPending",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a model is fetched: the entry of the storage Secret, or a service account, in a namespace.

    `namespace` is empty for caches of the whole cluster. They fetch as the namespace of KServe's downloads.
    """

    namespace: str = ""
    service_account: str | None = None
    storage_key: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """One model directory. `askers`: who wants it, by their names in the status, the first to be asked for first."""

    key: str
    uri: str
    askers: Mapping[str, Identity]
    groups: tuple[str, ...] = ()

    @property
    def caches(self) -> tuple[tuple[str, str], ...]:
        """The namespace and the name of each cache that wants it."""
        return tuple((identity.namespace, name.rpartition("/")[2]) for name, identity in self.askers.items())

    def fetched_as(self, answers: Answers) -> Identity:
        """Return as whom it is fetched: the first asker whose credential was not refused, else the first."""
        identities = list(self.askers.values())
        return next((each for each in identities if (self.key, each) not in answers.refused), identities[0])


@dataclass(frozen=True, slots=True)
class Lying:
    """An artifact that is there. `private`: its source asked for a credential."""

    key: str
    private: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What sources said to identities about private artifacts. `allowed` and `refused`: pairs of a key and an identity."""

    allowed: frozenset[tuple[str, Identity]] = frozenset()
    refused: frozenset[tuple[str, Identity]] = frozenset()


@dataclass(frozen=True, slots=True)
class Looks:
    """What earlier looks found. `uid`: of the LocalModelNode they were compared with. `since`: name → first seen unwanted."""

    uid: str = ""
    since: Mapping[str, float] = field(default_factory=dict)


def artifacts(spec: LocalModelNodeSpec) -> tuple[Artifact, ...]:
    """Return what the node shall have: one artifact for each URI, however many caches name it."""
    by_uri: dict[str, list[LocalModel]] = {}
    for each in spec.local_models:
        by_uri.setdefault(each.source_model_uri, []).append(each)
    return tuple(
        Artifact(
            key_of(uri),
            uri,
            {each.status_key: _identity(each) for each in models},
            tuple(sorted({each.node_group for each in models if each.node_group})),
        )
        for uri, models in by_uri.items()
    )


def statuses(
    wanted: Iterable[Artifact], phases: Mapping[str, Phase], lying: Mapping[str, Lying], answers: Answers
) -> dict[str, ModelStatus]:
    """Return the status of each model by its name. `phases`: by key, absent while an artifact is not known yet.

    A private artifact counts only for those whose own credential was accepted for it.
    """
    found: dict[str, ModelStatus] = {}
    for each in wanted:
        status = _STATUSES[phases.get(each.key, "Queued")]
        for name, identity in each.askers.items():
            found[name] = _as_asked(each, identity, status, lying.get(each.key), answers)
    return found


def checks(wanted: Iterable[Artifact], lying: Mapping[str, Lying], answers: Answers) -> tuple[tuple[Artifact, Identity], ...]:
    """Return whose credentials are to be tried at the source: of whom it is not known for a private artifact that is there."""
    known = answers.allowed | answers.refused
    return tuple(
        (each, identity)
        for each in wanted
        if each.key in lying and lying[each.key].private
        for identity in dict.fromkeys(each.askers.values())
        if (each.key, identity) not in known
    )


def status_patch(before: LocalModelNodeStatus, now: Mapping[str, ModelStatus]) -> dict[str, object] | None:
    """Return the merge patch that makes the status `now`; None if nothing differs. Names that are gone disappear."""
    if dict(before.model_status) == dict(now):
        return None
    return {"status": {"modelStatus": {**dict.fromkeys(before.model_status.keys() - now.keys()), **now}}}


def look(before: Looks, wanted: Collection[Artifact] | None, uid: str, names: Iterable[str], *, now: float) -> Looks:
    """Return what is known after a look at the `names` in the directory. `wanted`: None without a LocalModelNode of our own.

    Without one, or with another one, what was seen earlier counts no more. `now`: seconds of a clock that never steps.
    """
    if wanted is None:
        return Looks()
    earlier = before.since if before.uid == uid else {}
    keys = {each.key for each in wanted}
    return Looks(uid, {name: earlier.get(name, now) for name in names if _KEY.fullmatch(name) and name not in keys})


def removals(looks: Looks, *, busy: Collection[str] = (), now: float) -> tuple[str, ...]:
    """Return the directories to remove. Whether one is in use is asked when it is removed. `busy`: keys under work."""
    return tuple(sorted(name for name, since in looks.since.items() if now - since >= APART and name not in busy))


def _identity(model: LocalModel) -> Identity:
    storage = model.storage or Storage()
    parameters = tuple(sorted(storage.parameters.items()))
    return Identity(model.namespace or "", model.service_account_name or None, storage.key or None, parameters)


def _as_asked(
    artifact: Artifact, identity: Identity, status: ModelStatus, lying: Lying | None, answers: Answers
) -> ModelStatus:
    asked = (artifact.key, identity)
    if status != "ModelDownloaded" or lying is None or not lying.private or asked in answers.allowed:
        return status
    return "ModelDownloadError" if asked in answers.refused else "ModelDownloadPending"
