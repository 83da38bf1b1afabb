"""KServe's contract of local models on one node, row by row: what is given, and what the agent then does."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.kserve.agent import (
    Answers,
    Artifact,
    Identity,
    Looks,
    Lying,
    artifacts,
    checks,
    look,
    removals,
    status_patch,
    statuses,
)
from cluster.kserve.kinds import LOCAL_MODEL_NODE, LocalModelNodeStatus, ModelStatus
from cluster.kserve.names import key_of, serves
from cluster.resources import Phase
from tests.cluster.kserve.worlds import URI, entry

KEY = key_of(URI)
UNWANTED = "0123456789abcdef"


def wanted(*entries: dict[str, Any]) -> tuple[Artifact, ...]:
    document = {"metadata": {"name": "n1"}, "spec": {"localModels": list(entries)}}
    return artifacts(LOCAL_MODEL_NODE.read(document).spec)


def reported(phase: Phase | None, *entries: dict[str, Any], private: bool = False, answers: Answers | None = None) -> Any:
    phases = {KEY: phase} if phase else {}
    lying = {KEY: Lying(KEY, private)} if phase == "Ready" else {}
    return statuses(wanted(*entries), phases, lying, answers or Answers())


@pytest.mark.parametrize(
    ("phase", "status"),
    [
        pytest.param(None, "ModelDownloadPending", id="seen just now"),
        pytest.param("Queued", "ModelDownloadPending", id="waiting for its turn"),
        pytest.param("Fetching", "ModelDownloading", id="being fetched"),
        pytest.param("Ready", "ModelDownloaded", id="complete and verified"),
        pytest.param("Failed", "ModelDownloadError", id="failed for good"),
        pytest.param("Waiting", "ModelDownloadError", id="failed, to be tried again"),
        pytest.param("Damaged", "ModelDownloading", id="damaged, being repaired"),
        pytest.param("Evicted", "ModelDownloadPending", id="made room for another"),
    ],
)
def test_rows_19_to_23_an_entry_then_its_status_is_pending_downloading_downloaded_or_error(
    phase: Phase | None, status: ModelStatus
) -> None:
    assert reported(phase, entry()) == {"m": status}


class TestRow24TwoEntriesWithOneUri:
    def test_then_one_directory_and_one_download(self) -> None:
        (found,) = wanted(entry("a"), entry("b"), entry("c", namespace="team"))

        assert found.key == KEY
        assert list(found.askers) == ["a", "b", "team/c"]

    def test_then_both_get_the_status(self) -> None:
        assert reported("Ready", entry("a"), entry("b")) == dict.fromkeys("ab", "ModelDownloaded")

    def test_of_different_uris_there_are_two(self) -> None:
        assert len(wanted(entry("a"), entry("b", uri=f"{URI}2"))) == 2


class TestAPrivateModelIsOnlyForThoseWhoseCredentialWasAccepted:
    mine = entry("a", namespace="team", storage={"key": "hub"})
    theirs = entry("b", namespace="others", storage={"key": "hub"})
    me, they = Identity("team", None, "hub"), Identity("others", None, "hub")

    def test_it_is_fetched_as_the_first(self) -> None:
        (found,) = wanted(self.mine, self.theirs)

        assert found.fetched_as(Answers()) == self.me

    def test_or_as_the_next_whose_credential_was_not_refused(self) -> None:
        (found,) = wanted(self.mine, self.theirs)

        assert found.fetched_as(Answers(refused=frozenset({(KEY, self.me)}))) == self.they
        assert found.fetched_as(Answers(refused=frozenset({(KEY, self.me), (KEY, self.they)}))) == self.me

    def test_the_other_one_is_pending_until_the_source_answered(self) -> None:
        answers = Answers(allowed=frozenset({(KEY, self.me)}))

        found = reported("Ready", self.mine, self.theirs, private=True, answers=answers)

        assert found == {"team/a": "ModelDownloaded", "others/b": "ModelDownloadPending"}
        (asked,) = checks(wanted(self.mine, self.theirs), {KEY: Lying(KEY, private=True)}, answers)
        assert (asked[0].key, asked[1]) == (KEY, self.they)

    def test_one_that_is_refused_has_an_error(self) -> None:
        answers = Answers(frozenset({(KEY, self.me)}), frozenset({(KEY, self.they)}))

        found = reported("Ready", self.mine, self.theirs, private=True, answers=answers)

        assert found == {"team/a": "ModelDownloaded", "others/b": "ModelDownloadError"}
        assert checks(wanted(self.mine, self.theirs), {KEY: Lying(KEY, private=True)}, answers) == ()

    def test_a_public_one_is_for_all(self) -> None:
        assert reported("Ready", self.mine, self.theirs) == dict.fromkeys(("team/a", "others/b"), "ModelDownloaded")
        assert checks(wanted(self.mine, self.theirs), {KEY: Lying(KEY)}, Answers()) == ()

    def test_entries_with_one_credential_are_asked_once(self) -> None:
        same = {**self.mine, "modelName": "again"}

        assert len(checks(wanted(self.mine, same), {KEY: Lying(KEY, private=True)}, Answers())) == 1


_AGAIN: tuple[Phase | None, ...] = (None, "Fetching")


def test_row_25_directory_missing_though_downloaded_then_it_is_downloaded_again() -> None:
    before = LocalModelNodeStatus({"m": "ModelDownloaded"})

    patches = [status_patch(before, reported(phase, entry())) for phase in _AGAIN]

    assert patches == [
        {"status": {"modelStatus": {"m": "ModelDownloadPending"}}},
        {"status": {"modelStatus": {"m": "ModelDownloading"}}},
    ]


class TestRow28DirectoryThatNobodyWants:
    def test_then_it_is_removed_after_two_looks_within_a_minute(self) -> None:
        names = [KEY, UNWANTED]
        first = look(Looks(), wanted(entry()), "uid", names, now=100)
        second = look(first, wanted(entry()), "uid", names, now=130)

        assert removals(first, now=100) == ()
        assert removals(first, now=129.9) == ()
        assert removals(second, now=130) == (UNWANTED,)

    @pytest.mark.parametrize(
        "name", [".fetcher", "lost+found", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "m"]
    )
    def test_but_only_by_a_name_that_is_a_key(self, name: str) -> None:
        looks = look(Looks(), wanted(entry()), "uid", [name], now=0)

        assert removals(look(looks, wanted(entry()), "uid", [name], now=60), now=60) == ()

    def test_but_not_while_the_local_model_node_was_never_seen(self) -> None:
        looks = look(Looks(), None, "", [UNWANTED], now=0)

        assert removals(look(looks, None, "", [UNWANTED], now=3600), now=3600) == ()

    def test_and_an_empty_list_of_a_local_model_node_that_is_there_wants_nothing(self) -> None:
        looks = look(Looks(), wanted(), "uid", [KEY], now=0)

        assert removals(look(looks, wanted(), "uid", [KEY], now=30), now=30) == (KEY,)

    @pytest.mark.parametrize(
        ("between", "uid"),
        [pytest.param(None, "", id="it disappeared"), pytest.param((), "another", id="another one took its place")],
    )
    def test_and_the_looks_begin_anew_after(self, between: tuple[Artifact, ...] | None, uid: str) -> None:
        looks = look(Looks(), wanted(), "uid", [KEY], now=0)
        looks = look(looks, between, uid, [KEY], now=20)
        looks = look(looks, wanted(), "uid", [KEY], now=40)

        assert removals(looks, now=60) == ()
        assert removals(looks, now=70) == (KEY,)

    def test_and_what_is_wanted_again_meanwhile_stays(self) -> None:
        looks = look(Looks(), wanted(), "uid", [KEY], now=0)
        looks = look(looks, wanted(entry()), "uid", [KEY], now=20)
        looks = look(looks, wanted(), "uid", [KEY], now=40)

        assert removals(looks, now=60) == ()

    def test_and_what_is_being_worked_on_stays(self) -> None:
        looks = look(Looks(), wanted(), "uid", [KEY], now=0)

        assert removals(looks, busy={KEY}, now=60) == ()


def test_row_29_entry_removed_from_the_spec_then_its_name_disappears_from_the_status() -> None:
    before = LocalModelNodeStatus({"m": "ModelDownloaded", "team/m": "ModelDownloaded"})

    assert status_patch(before, {"m": "ModelDownloaded"}) == {
        "status": {"modelStatus": {"team/m": None, "m": "ModelDownloaded"}}
    }
    assert status_patch(before, before.model_status) is None, "no status is written without a difference"


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        ("hf://org/m", "5df9d7cea3b612c3"),
        ("hf://Qwen/Qwen3-14B-GGUF", "9da7779bcdce8224"),
        ("s3://models/org/Repo-GGUF", "adbdb57480d39e37"),
    ],
)
def test_row_31_the_key_is_the_first_16_digits_of_the_sha_256_of_the_uri(uri: str, key: str) -> None:
    assert key_of(uri) == key


@pytest.mark.parametrize(
    ("source", "uri", "matches"),
    [
        pytest.param("hf://org/m", "hf://org/m", True, id="equal"),
        pytest.param("hf://org/m", "hf://org/m/sub/dir", True, id="below"),
        pytest.param("hf://org/m/", "hf://org/m", True, id="a trailing slash of the source"),
        pytest.param("hf://org/m", "hf://org/m/", True, id="a trailing slash of the service"),
        pytest.param("hf://org/m", "hf://org/model", False, id="a bare prefix"),
        pytest.param("hf://org/m/sub", "hf://org/m", False, id="above"),
        pytest.param("hf://org/m", "hf://org/m/../other", False, id="below, and out again"),
    ],
)
def test_row_32_a_uri_matches_if_it_is_equal_or_below(source: str, uri: str, matches: bool) -> None:
    assert serves(source, uri) is matches
