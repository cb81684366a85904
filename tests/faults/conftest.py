"""What every test of faults must leave as it was."""

import resource
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def address_space_is_given_back() -> Iterator[None]:
    """A limit that outlives its fuzzed input lets XLA abort when it compiles a later test."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    yield
    assert resource.getrlimit(resource.RLIMIT_AS) == before
