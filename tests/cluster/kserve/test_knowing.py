"""What a node knows of the models it shall have, and how each answer changes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.kserve import knowing
from cluster.kserve.agent import Answers, Artifact, Identity, Lying
from cluster.kserve.knowing import FINAL, FIRST, LONGEST, Knowledge
from cluster.kserve.translating import Pin
from fetcher.errors import FetchError, NotFound, Unauthorized, Unreachable

PIN, OTHER = Pin("commit", "a" * 64, 10), Pin("later", "b" * 64, 20)
MINE, THEIRS = Identity("team", None, "hub"), Identity("others", None, "hub")
ONE = Artifact("5df9d7cea3b612c3", "hf://org/m", {"team/a": MINE, "others/b": THEIRS})
KEY = ONE.key
PRIVATE = {KEY: Lying(KEY, private=True)}
RECHECK = 60.0


def asked(known: Knowledge, *, lying: dict[str, Lying] | None = None, now: float = 0.0) -> list[Identity]:
    found = knowing.questions(known, [ONE], lying or {}, now=now, recheck=RECHECK)
    assert all(each is ONE for each, _ in found)
    return [identity for _, identity in found]


def failed(known: Knowledge, error: FetchError, *, identity: Identity = MINE, now: float = 0.0) -> Knowledge:
    return knowing.failed(known, (KEY, identity), error, now=now, recheck=RECHECK)


class TestWhatLiesThere:
    def test_is_what_it_is_without_asking_anybody(self) -> None:
        known = knowing.surveyed(Knowledge(), [ONE], {KEY: PIN})

        assert known.pins == {KEY: PIN}
        assert asked(known, lying={KEY: Lying(KEY)}) == []

    def test_and_stays_so_while_it_is_being_fetched_again(self) -> None:
        known = knowing.surveyed(knowing.surveyed(Knowledge(), [ONE], {KEY: PIN}), [ONE], {})

        assert known.pins == {KEY: PIN}

    def test_of_what_nobody_wants_nothing_is_kept(self) -> None:
        known = failed(knowing.answered(Knowledge(), (KEY, MINE), PIN), NotFound("gone"), identity=THEIRS)

        assert knowing.surveyed(known, [], {KEY: PIN}) == Knowledge()


class TestWhatDoesNotLieThere:
    def test_is_asked_for_as_the_first_asker(self) -> None:
        assert asked(Knowledge()) == [MINE]

    def test_once(self) -> None:
        known = knowing.answered(Knowledge(), (KEY, MINE), PIN)

        assert known.pins == {KEY: PIN}
        assert asked(known) == []

    def test_or_as_the_next_one_if_the_first_was_refused(self) -> None:
        assert asked(failed(Knowledge(), Unauthorized("no"))) == [THEIRS]

    @pytest.mark.parametrize(
        ("error", "times", "wait"),
        [
            pytest.param(Unreachable("away"), 1, FIRST, id="a source that is away"),
            pytest.param(Unreachable("away"), 3, 4 * FIRST, id="the third time"),
            pytest.param(Unreachable("away"), 20, LONGEST, id="for long"),
            pytest.param(NotFound("gone"), 1, FINAL, id="a model that does not exist"),
            pytest.param(Unauthorized("no"), 1, RECHECK, id="a credential that is wrong"),
        ],
    )
    def test_is_asked_for_again_after(self, error: FetchError, times: int, wait: float) -> None:
        known = Knowledge()
        for _ in range(times):
            known = failed(known, error)
        known = replace(known, answers=Answers(), tried={})

        assert asked(known, now=wait - 0.1) == []
        assert asked(known, now=wait) == [MINE]


class TestPrivateArtifact:
    def test_is_asked_for_as_everyone_who_did_not_get_it(self) -> None:
        known = knowing.answered(Knowledge(), (KEY, MINE), PIN)

        assert asked(known, lying=PRIVATE) == [THEIRS]

    def test_a_credential_that_was_refused_is_tried_again_when_it_may_be_corrected(self) -> None:
        known = failed(knowing.answered(Knowledge(), (KEY, MINE), PIN), Unauthorized("no"), identity=THEIRS)

        assert asked(known, lying=PRIVATE, now=RECHECK - 1) == []
        assert asked(known, lying=PRIVATE, now=RECHECK) == [THEIRS]
        assert known.answers == Answers(frozenset({(KEY, MINE)}), frozenset({(KEY, THEIRS)}))

    def test_a_credential_that_was_corrected_counts(self) -> None:
        known = failed(knowing.answered(Knowledge(), (KEY, MINE), PIN), Unauthorized("no"), identity=THEIRS)
        known = knowing.answered(known, (KEY, THEIRS), OTHER)

        assert known.answers == Answers(frozenset({(KEY, MINE), (KEY, THEIRS)}))
        assert known.pins == {KEY: PIN}, "what lies there does not become another artifact because another one asks"

    def test_after_a_restart_those_who_had_it_still_have_it_and_are_asked_again(self) -> None:
        before = {"team/a": "ModelDownloaded", "others/b": "ModelDownloadError"}
        known = knowing.remembered(Knowledge({KEY: PIN}), [ONE], before)  # type: ignore[arg-type]

        assert known.answers.allowed == {(KEY, MINE)}
        assert set(asked(known, lying=PRIVATE)) == {MINE, THEIRS}
        assert failed(known, Unreachable("away")).answers.allowed == {(KEY, MINE)}
        assert failed(known, Unauthorized("no")).answers.allowed == frozenset()
        assert asked(knowing.answered(known, (KEY, MINE), PIN), lying=PRIVATE) == [THEIRS]


class TestSourceWithOtherContent:
    def test_is_asked_again_though_the_artifact_lies_there(self) -> None:
        known = knowing.outdated(knowing.surveyed(Knowledge(), [ONE], {KEY: PIN}), [KEY, "unknown"])
        known = knowing.surveyed(known, [ONE], {KEY: PIN})

        assert known.pins == {}
        assert asked(known, lying={KEY: Lying(KEY)}) == [MINE]
        assert knowing.answered(known, (KEY, MINE), OTHER).pins == {KEY: OTHER}


class TestPhases:
    def test_are_those_of_the_agent_where_it_is_known_what_the_artifact_is(self) -> None:
        assert knowing.phases(Knowledge({KEY: PIN}), [ONE], {KEY: "Fetching"}, ()) == {KEY: "Fetching"}

    def test_tell_that_no_source_could_be_asked(self) -> None:
        known = failed(Knowledge(), Unauthorized("no"))

        assert knowing.phases(known, [ONE], {}, ()) == {KEY: "Failed"}
        assert knowing.phases(failed(known, Unreachable("away"), identity=THEIRS), [ONE], {}, ()) == {KEY: "Waiting"}

    def test_are_unknown_before_anything_is_known(self) -> None:
        assert knowing.phases(Knowledge(), [ONE], {KEY: "Ready"}, ()) == {}

    def test_fail_where_pods_would_look_elsewhere(self) -> None:
        assert knowing.phases(Knowledge({KEY: PIN}), [ONE], {KEY: "Ready"}, {KEY}) == {KEY: "Failed"}
