"""The window of metrics between two log rows."""

import jax
import jax.numpy as jnp
import pytest

from jaxres.data.feed import Feed
from jaxres.training import parallel
from jaxres.training.window import AHEAD, LAST, Window


def test_no_more_than_so_many_calls_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = object.__new__(Feed)
    feed.wait_s = 0.0
    window = Window(feed, parallel.Jit(parallel.make_mesh(1)), batch_size=4)
    calls = [
        {name: jnp.full(1, number, jnp.float32) for name in ("loss", "accuracy", *LAST)}
        for number in range(AHEAD + 3)
    ]
    waited: list[dict[str, jax.Array]] = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    for call in calls:
        window.add(call, steps=1)
    assert [int(call["loss"][0]) for call in waited] == [0, 1, 2]
    closed = window.close()
    assert closed["loss"] == (AHEAD + 2) / 2
    assert closed["pictures"] == 4 * len(calls)
    window.add(calls[0], steps=1)
    assert len(waited) == 3
