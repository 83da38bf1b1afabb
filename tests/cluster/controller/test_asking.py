"""When a source is asked, and what is kept of its answers."""

from __future__ import annotations

from dataclasses import replace

from cluster.controller.admitting import verdicts
from cluster.controller.asking import (
    CHANGED_WAIT,
    FINAL_WAIT,
    LOOK_FAILED,
    Asked,
    Question,
    answered,
    must_ask,
    questions,
    refused,
    remembered,
    unchanged,
)
from cluster.controller.volumes import volume_name
from cluster.controller.world import Model, Observation, Owned, Resolution, World
from cluster.resources import Condition, ModelCacheStatus
from cluster.resources.model import Auth, SecretKey
from fetcher.artifact import Digest, RemoteFile
from fetcher.errors import FetchError, Unauthorized, Unreachable
from tests.cluster.controller.building import cache, found, key_of, model, world

AUTH = Auth(secret_key_ref=SecretKey("hub", "token"))
M = ("a", "m")
FILES = [RemoteFile("a", 3, (Digest("sha256", "0" * 64),)), RemoteFile("b", 4)]


def question(given: World | None = None, name: tuple[str, str] = ("a", "m")) -> Question:
    seen = given or world([model(auth=AUTH)], resolutions={})
    return questions(seen, verdicts(seen, allow_loopback=False))[name]


def asked(*, failed: FetchError | None = None, now: float = 0.0, of: Question | None = None) -> Asked:
    """What is known after an answer of the source at `now`, or after a refusal."""
    if failed is not None:
        return refused(Asked(Resolution(), "uid-m"), of or question(), failed, version="v1", now=now, by_source=True)
    return answered(of or question(), FILES, revision="r1", version="v1", now=now)


class TestAsking:
    def test_a_source_is_asked_once(self) -> None:
        assert must_ask(Asked(Resolution(), "uid-m"), question(), "v1", 0)
        assert not must_ask(asked(), question(), "v1", 1e9)

    def test_a_changed_secret_or_intent_asks_again(self) -> None:
        assert must_ask(asked(), question(), "v2", 1)
        assert must_ask(asked(), replace(question(), require="Digest"), "v1", 1)

    def test_another_generation_alone_asks_nothing(self) -> None:
        assert not must_ask(asked(), replace(question(), generation=2), "v1", 1)

    def test_a_temporary_failure_is_asked_again_after_ever_longer_waits(self) -> None:
        once = asked(failed=Unreachable("away"))
        assert not must_ask(once, question(), "v1", 9)
        assert must_ask(once, question(), "v1", 10)
        twice = refused(once, question(), Unreachable("away"), version="v1", now=10, by_source=True)
        assert not must_ask(twice, question(), "v1", 29)
        assert must_ask(twice, question(), "v1", 30)

    def test_a_final_failure_waits_for_a_person_who_changes_the_secret(self) -> None:
        failed = asked(failed=Unauthorized("401"))
        assert not must_ask(failed, question(), "v1", FINAL_WAIT - 1)
        assert must_ask(failed, question(), "v1", FINAL_WAIT)
        assert must_ask(failed, question(), "v2", 1)

    def test_a_secret_that_is_missing_is_looked_for_soon_and_asked_with_at_once(self) -> None:
        failed = refused(
            Asked(Resolution(), "uid-m"), question(), Unauthorized("no Secret"), version=None, now=0, by_source=False
        )
        assert failed.due == LOOK_FAILED
        assert must_ask(failed, question(), "v1", LOOK_FAILED)

    def test_on_change_asks_for_a_newer_revision_at_each_interval(self) -> None:
        given = world([model(refresh_policy="OnChange", refresh_interval="5m")])
        asking = question(given)
        assert asking.pin is None
        known = asked(of=asking)
        assert known.due == 300
        assert not must_ask(known, asking, "v1", 299)
        assert must_ask(known, asking, "v1", 300)

    def test_without_on_change_what_was_found_is_asked_for_again(self) -> None:
        assert question(world([model()])).pin == "r1"
        assert question(world([model()])).refresh is None

    def test_one_that_shall_stay_keeps_the_revision_for_all_that_share_it(self) -> None:
        changing = model(refresh_policy="OnChange")
        given = world([changing, model("other", "b")])
        assert question(given).refresh is None
        assert question(given).pin == "r1"

    def test_those_that_share_a_copy_follow_the_oldest_of_them(self) -> None:
        old = model(refresh_policy="OnChange", refresh_interval="1h", created="2024-01-01T00:00:00Z")
        young = model("young", "b", refresh_policy="OnChange", refresh_interval="10m")
        name = ("b", "young")
        given = world([old, young], resolutions={M: found(old, revision="r2"), name: found(young, revision="r1")})
        assert question(given).refresh == 600
        assert question(given).pin is None
        follower = question(given, name)
        assert follower.pin == "r2"
        assert must_ask(asked(of=follower), follower, "v1", 1)

    def test_a_private_model_is_refreshed_while_its_secret_is_looked_at(self) -> None:
        given = world([model(auth=AUTH, refresh_policy="OnChange", refresh_interval="7m")])
        asking = question(given)
        known = asked(of=asking)
        looked = unchanged(known, asking, "v1", 300)
        assert (known.due, looked.due) == (300, 420)

    def test_other_content_on_a_node_asks_again_but_not_all_the_time(self) -> None:
        seen = cache(observed={key_of(): Observation("Waiting", "OtherRevision")})
        changed = question(world([model(auth=AUTH)], nodes=1, caches={"n1": seen}))
        assert changed.changed
        assert not must_ask(asked(), changed, "v1", CHANGED_WAIT - 1)
        assert must_ask(asked(), changed, "v1", CHANGED_WAIT)


class TestAnswers:
    def test_an_answer_has_the_selected_files_and_whether_all_have_digests(self) -> None:
        answer = asked().resolution
        assert answer.found is not None
        assert (answer.found.key, answer.found.bytes, answer.found.files) == (key_of(), 7, 2)
        assert not answer.digests

    def test_a_later_failure_keeps_the_answer(self) -> None:
        later = refused(asked(), question(), Unauthorized("401"), version="v2", now=1, by_source=True)
        assert later.resolution.found == asked().resolution.found
        assert later.resolution.reason == "Unauthorized"

    def test_a_look_that_finds_nothing_new_changes_nothing_but_the_next_look(self) -> None:
        looked = unchanged(asked(), question(), "v1", 100)
        assert replace(looked, due=0) == replace(asked(), due=0)
        assert looked.due > 100


class TestRestart:
    def status(self, generation: int = 1) -> ModelCacheStatus:
        resolved = Condition("Resolved", "True", "Resolved", observed_generation=generation)
        return ModelCacheStatus(artifact=found(model()).found, conditions=(resolved,))

    def given(self, of: Model) -> World:
        volume = Owned("uid-volume", key=key_of(), model=M)
        return world([of], resolutions={}, volumes={volume_name(M): volume})

    def test_an_answer_is_taken_from_the_status_and_not_asked_for_again(self) -> None:
        known = remembered(self.given(model(status=self.status(), auth=AUTH)), M, question())
        assert known is not None
        assert known.resolution.found == found(model()).found
        assert not must_ask(known, question(), "v7", 0)

    def test_a_specification_that_changed_meanwhile_asks_again_for_the_same_revision(self) -> None:
        of = model(status=self.status(generation=0), auth=AUTH)
        again = question(world([of], resolutions={}))
        known = remembered(self.given(of), M, again)
        assert known is not None
        assert must_ask(known, again, "v1", 0)
        assert again.pin == "r1"

    def test_the_status_of_another_artifact_says_nothing(self) -> None:
        other = model(revision="v2", status=self.status())
        assert remembered(self.given(other), M, question(world([other], resolutions={}))) is None

    def test_a_status_without_our_volume_proves_no_answer(self) -> None:
        forged = world([model(status=self.status(), auth=AUTH)], resolutions={})
        assert remembered(forged, M, question()) is None


class TestPins:
    def test_a_second_model_cache_is_asked_about_the_revision_of_the_first(self) -> None:
        older, newer = model(created="2024"), model(namespace="b")
        given = world([older, newer], resolutions={("a", "m"): found(older, revision="r7")})
        assert question(given, ("b", "m")).pin == "r7"
        assert question(given, ("a", "m")).pin == "r7"

    def test_a_model_in_another_pool_pins_nothing(self) -> None:
        older, newer = model(created="2024"), model(namespace="b", uri="hf://org/other")
        given = world([older, newer], resolutions={("a", "m"): found(older)})
        assert question(given, ("b", "m")).pin is None

    def test_nobody_is_asked_for_who_may_not_use_the_pool(self) -> None:
        given = world([model()], [])
        assert questions(given, verdicts(given, allow_loopback=False)) == {}
