"""Frozen values behave as those of the standard library, which is the oracle."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest

from fetcher import values


def made_by(dataclass: Any) -> dict[str, Any]:
    """The same classes, made by `dataclass`."""

    @dataclass(frozen=True, slots=True)
    class Empty:
        """No field."""

    @dataclass(frozen=True, slots=True)
    class One:
        """One field, which may be any value."""

        value: Any

    @dataclass(frozen=True, slots=True)
    class Several:
        """Every kind of field."""

        name: str
        secret: str = field(default="", repr=False)
        note: str = field(default="", compare=False)
        files: dict[str, int] = field(default_factory=dict, compare=False)
        length: int = field(init=False)
        kind: str = field(default="kind", init=False)
        parts: list[int] = field(default_factory=list, init=False, compare=False)
        last: int = field(default=7, kw_only=True)

        def __post_init__(self) -> None:
            object.__setattr__(self, "length", len(self.name))

    @dataclass(frozen=True, slots=True, order=True)
    class Ordered:
        """Compared as a tuple."""

        first: int
        second: str = "b"

    @dataclass(frozen=True, slots=True, eq=False)
    class Itself:
        """Equal to nothing else."""

        value: int

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Named:
        """Given by name only."""

        value: int
        other: int = 2

    @dataclass(frozen=True, slots=True)
    class Own:  # noqa: PLW1641  the decorator makes it
        """Its own methods stay."""

        value: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

        def __repr__(self) -> str:
            return "own"

    @dataclass(frozen=True, slots=True)
    class Derived(One):
        """With another field."""

        more: int = 1

    return {name: made for name, made in locals().items() if name != "dataclass"}


OURS, THEIRS = made_by(values.dataclass), made_by(dataclasses.dataclass)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Empty", (), {}),
    ("One", (1,), {}),
    ("One", (), {"value": [1]}),
    ("One", (), {}),
    ("One", (1, 2), {}),
    ("Several", ("name",), {}),
    ("Several", ("name", "secret", "note", {"a": 1}), {"last": 3}),
    ("Several", ("name",), {"length": 3}),
    ("Several", ("name", "", "other note"), {}),
    ("Ordered", (1,), {}),
    ("Ordered", (1, "a"), {}),
    ("Ordered", (2, "a"), {}),
    ("Itself", (1,), {}),
    ("Named", (), {"value": 1}),
    ("Named", (1,), {}),
    ("Own", (1,), {}),
    ("Own", (2,), {}),
    ("Derived", (1,), {}),
    ("Derived", (1, 2), {}),
]


def outcome(call: Any) -> Any:
    try:
        return call()
    except TypeError:
        return TypeError


def pairs() -> tuple[list[Any], list[Any]]:
    """Every value that can be made, ours and theirs in the same order."""
    made = [(outcome(lambda: OURS[n](*a, **k)), outcome(lambda: THEIRS[n](*a, **k))) for n, a, k in CALLS]  # noqa: B023
    assert [ours is TypeError for ours, _ in made] == [theirs is TypeError for _, theirs in made]
    kept = [(ours, theirs) for ours, theirs in made if ours is not TypeError]
    return [ours for ours, _ in kept], [theirs for _, theirs in kept]


class TestLikeTheStandardLibrary:
    def test_in_what_they_show_and_hold(self) -> None:
        ours, theirs = pairs()
        assert [repr(each) for each in ours] == [repr(each) for each in theirs]
        assert [dataclasses.asdict(each) for each in ours] == [dataclasses.asdict(each) for each in theirs]

    @pytest.mark.parametrize("compare", ["__eq__", "__lt__", "__le__", "__gt__", "__ge__"])
    def test_in_every_comparison(self, compare: str) -> None:
        def table(made: list[Any]) -> list[Any]:
            return [outcome(lambda: getattr(a, compare)(b)) for a in made for b in made]  # noqa: B023

        ours, theirs = pairs()
        assert table(ours) == table(theirs)

    def test_in_their_hash(self) -> None:
        ours, theirs = pairs()
        same = [not isinstance(each, THEIRS["Itself"]) for each in theirs]
        hashes = zip((outcome(lambda: hash(a)) for a in ours), (outcome(lambda: hash(b)) for b in theirs), same, strict=True)  # noqa: B023
        assert all(a == b for a, b, compared in hashes if compared)

    def test_in_their_signature_and_fields(self) -> None:
        for name, ours in OURS.items():
            theirs = THEIRS[name]
            assert parameters(ours) == parameters(theirs)
            assert ours.__match_args__ == theirs.__match_args__
            assert ours.__slots__ == theirs.__slots__
            assert ours.__init__.__qualname__ == theirs.__init__.__qualname__

    def test_in_being_copied_replaced_and_matched(self) -> None:
        value = OURS["Several"]("name", last=3)
        assert copy.copy(value) == copy.deepcopy(value) == value
        assert dataclasses.replace(value, name="names").length == 5
        match OURS["Ordered"](1, "x"):
            case object(first=first, second=second):
                assert (first, second) == (1, "x")


def parameters(cls: Any) -> list[tuple[Any, ...]]:
    found = inspect.signature(cls).parameters.values()
    return [(each.name, each.kind, each.annotation, each.default is not each.empty) for each in found]


class TestFrozen:
    def test_nothing_is_assigned_deleted_or_added(self) -> None:
        value = OURS["One"](1)
        with pytest.raises(FrozenInstanceError, match="cannot assign to field 'value'"):
            value.value = 2
        with pytest.raises(FrozenInstanceError, match="cannot assign to field 'other'"):
            value.other = 2
        with pytest.raises(FrozenInstanceError, match="cannot delete field 'value'"):
            del value.value

    def test_a_factory_makes_a_new_value_each_time(self) -> None:
        first, second = OURS["Several"]("a"), OURS["Several"]("a")
        assert first.files is not second.files
        assert first.parts is not second.parts

    def test_only_init_is_compiled_for_each_class(self) -> None:
        assert OURS["One"].__setattr__ is OURS["Named"].__setattr__

    def test_a_value_survives_pickling(self) -> None:
        value = Pickled("a", 2)
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301  our own


class TestOthers:
    def test_what_is_not_frozen_or_has_no_slots_is_the_standard_library_s(self) -> None:
        @values.dataclass
        class Plain:
            value: int

        @values.dataclass(slots=True)
        class Mutable:
            value: int

        plain, mutable = Plain(1), Mutable(1)
        plain.value = mutable.value = 2
        assert (plain, mutable) == (Plain(2), Mutable(2))


@values.dataclass(frozen=True, slots=True)
class Pickled:
    """Found by its name."""

    name: str
    number: int
