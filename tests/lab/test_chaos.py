"""Random choices can be repeated, and the environment sets their number."""

from __future__ import annotations

from tests.lab.chaos import Chaos, chaos_from


def test_the_same_seed_makes_the_same_choices() -> None:
    environ = {"WEIGHTLIFT_CHAOS_SEED": "7"}
    assert choices(chaos_from(environ)) == choices(chaos_from(environ))


def test_without_a_seed_every_run_differs() -> None:
    assert choices(chaos_from({})) != choices(chaos_from({}))


def test_a_reported_seed_repeats_its_run() -> None:
    first = chaos_from({})
    assert choices(chaos_from({"WEIGHTLIFT_CHAOS_SEED": str(first.seed)})) == choices(first)


def test_the_environment_sets_the_number_of_rounds() -> None:
    assert len(chaos_from({}).rounds(ordinarily=40)) == 40
    assert len(chaos_from({"WEIGHTLIFT_CHAOS_ROUNDS": "5000"}).rounds(ordinarily=40)) == 5000


def choices(chaos: Chaos) -> list[float]:
    return [chaos.random.random() for _ in range(4)]
