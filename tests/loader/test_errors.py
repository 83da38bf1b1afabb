"""The loader's errors are a branch of the fetcher's tree, and match the drawing in their module."""

from __future__ import annotations

import re

import pytest

from fetcher.errors import FetchError
from loader import errors
from loader.errors import FileReplaced, LoadError, MalformedCheckpoint, NotReadable, NotResident, PagesDropped, TooLarge

RAISED: list[type[LoadError]] = [MalformedCheckpoint, NotReadable, TooLarge, NotResident, PagesDropped, FileReplaced]


def test_the_drawing_of_the_tree_is_right() -> None:
    drawn = re.findall(r"([A-Z]\w+) +(\d+)  ", (errors.__doc__ or "").partition("::\n")[2])
    assert drawn == [(error.__name__, str(error.exit_code)) for error in RAISED]
    assert LoadError.__subclasses__() == RAISED
    assert LoadError.__base__ is FetchError


@pytest.mark.parametrize("error", RAISED)
def test_the_reason_is_the_class_name_and_only_exit_code_75_is_retryable(error: type[LoadError]) -> None:
    assert error.reason == error.__name__
    assert error.retryable == (error.exit_code == 75)
    assert error("what happened", path="a.safetensors").sentence() == f"{error.reason}: a.safetensors: what happened"


def test_malformed_content_is_named_by_file_and_field() -> None:
    error = MalformedCheckpoint("not a list", path="/m/a.safetensors", field="'x'.shape")
    assert error.sentence() == "MalformedCheckpoint: /m/a.safetensors: 'x'.shape: not a list"
    assert (error.path, error.field, error.problem) == ("/m/a.safetensors", "'x'.shape", "not a list")
