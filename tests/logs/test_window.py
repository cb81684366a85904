"""The window of metrics between two log rows."""

import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxres.data.feed import Feed
from jaxres.distributed import strategy
from jaxres.distributed.mesh import make_mesh
from jaxres.logs.window import AHEAD, LAST, Input, Window


def test_no_more_than_so_many_calls_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = iter(())
    feed = Feed(nothing, [], lambda batch, steps: batch, depth=1)
    window = Window(feed, strategy.Jit(make_mesh(1)), batch_size=4)
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


class Device:
    """Works on one call after the other; the results of each are there when it has ended."""

    def __init__(self, step_s: float):
        self.step_s = step_s
        self._free_at = 0.0

    def call(self) -> "Result":
        self._free_at = max(self._free_at, time.perf_counter()) + self.step_s
        return Result(self._free_at)


class Result:
    def __init__(self, at: float):
        self._at = at

    def block_until_ready(self) -> None:
        threading.Event().wait(max(0.0, self._at - time.perf_counter()))


@pytest.mark.parametrize(
    ("plan_s", "step_s", "share"), [(0.02, 0.14, 0.0), (0.14, 0.02, 0.12 / 0.14), (0.1, 0.05, 0.5)]
)
def test_waiting_is_the_time_in_which_the_devices_have_nothing_to_do(
    plan_s: float, step_s: float, share: float
) -> None:
    device, counted = Device(step_s), Input()
    began = time.perf_counter()
    counted.dispatched([], device.call())
    for _ in range(8):
        start = time.perf_counter()
        time.sleep(plan_s)
        spans = [(start, time.perf_counter())]
        counted.dispatched(spans, device.call())
    seconds = time.perf_counter() - began
    assert counted.wait_s / seconds == pytest.approx(share, abs=0.1)
    assert counted.host_s / seconds == pytest.approx(1.0, abs=0.1)
    if share == 0:
        assert counted.wait_s == 0
