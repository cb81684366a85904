import pytest

from benchmarks.timing import measure


def test_interleave_takes_turns_after_the_warm_up():
    calls = []
    seconds = measure.interleave(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, warmup=1, repeats=5
    )
    assert "".join(calls) == "ab" + "ab" * 5
    assert {name: len(each) for name, each in seconds.items()} == {"a": 5, "b": 5}


def test_few_repeats_are_refused():
    with pytest.raises(ValueError, match="repeats is 4; allowed: 5 or more"):
        measure.repeat(lambda: None, warmup=0, repeats=4)


def test_ratio_is_above_one_where_ours_is_faster():
    spread = measure.ratio([1.0, 2.0, 1.0], [2.0, 2.0, 3.0])
    assert spread == measure.Spread(median=2.0, min=1.0, max=3.0, pairs=3)


def test_percentiles_are_milliseconds():
    assert measure.percentiles_ms([0.001] * 9 + [0.1])["p50"] == pytest.approx(1.0)


def test_batch_is_halved_until_it_fits():
    tried = []

    def run(batch_size):
        tried.append(batch_size)
        if batch_size > 10:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return "done"

    assert measure.with_smaller_batch(run, 48, unit=2) == ("done", 6)
    assert tried == [48, 24, 12, 6]


def test_other_errors_and_hopeless_batches_pass_through():
    def broken(batch_size):
        raise RuntimeError("shapes differ")

    def full(batch_size):
        raise MemoryError

    with pytest.raises(RuntimeError, match="shapes differ"):
        measure.with_smaller_batch(broken, 8)
    with pytest.raises(MemoryError):
        measure.with_smaller_batch(full, 8)
