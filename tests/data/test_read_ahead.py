"""Reading ahead: the same things in the same order, a few of them early, and nothing left behind."""

import threading
import time

import numpy as np
import pytest
import torch

from harness.data.batches import ReadAhead, to_device
from harness.features.cache import CachedRows, FeatureCache, Recipe
from tests.conftest import make_data

SECONDS = 20


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("reading ahead")]


def test_all_comes_in_order():
    with ReadAhead(lambda x: x * x, range(50)) as squares:
        assert list(squares) == [x * x for x in range(50)]


def test_nothing_wanted_gives_nothing():
    with ReadAhead(str, []) as texts:
        assert list(texts) == []


def test_as_many_are_read_ahead_as_was_said_and_no_more():
    begun = []
    with ReadAhead(begun.append, range(10), depth=3) as batches:
        for count, _ in enumerate(batches, 1):
            deadline = time.monotonic() + SECONDS
            while len(begun) < min(count + 3, 10) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert begun == list(range(min(count + 3, 10)))


def test_the_next_is_read_while_the_last_is_in_use():
    second = threading.Event()
    with ReadAhead(lambda x: second.set() if x == 1 else None, range(2), depth=1) as batches:
        for _ in batches:
            assert second.wait(SECONDS)


def test_what_goes_wrong_in_a_read_comes_out_in_its_place():
    def read(x):
        if x == 2:
            raise OSError("row 2 is gone")
        return x

    got = []
    with pytest.raises(OSError, match="row 2 is gone"), ReadAhead(read, range(5)) as batches:
        got.extend(iter(batches))
    assert (got, readers()) == ([0, 1], [])


def test_who_leaves_in_the_middle_leaves_no_thread_and_reads_no_further():
    begun = []
    with ReadAhead(begun.append, range(1000)) as batches:
        for _ in batches:
            assert len(readers()) == 1
            break
    assert readers() == []
    assert len(begun) < 10


def test_an_error_outside_leaves_no_thread():
    def use(batch):
        raise KeyError(batch)

    with pytest.raises(KeyError, match="0"), ReadAhead(str, range(1000)) as batches:
        list(map(use, batches))
    assert readers() == []


def test_who_is_faster_than_the_reading_is_said_to_have_waited():
    with ReadAhead(lambda _: time.sleep(0.02), range(5)) as slow:
        list(slow)
    with ReadAhead(lambda x: x, range(5)) as fast:
        for _ in fast:
            time.sleep(0.02)
    assert slow.seconds_waited > 0.08
    assert fast.seconds_waited < slow.seconds_waited / 2


def stored(place, features):
    """Put rows into a cache, and return them as it gives them."""
    cache = FeatureCache(place, Recipe("noise", 1, {}, features.shape[1:]))
    cache.prepare()
    for row, values in enumerate(features):
        cache.write(str(row), values)
    return CachedRows(cache, [str(row) for row in range(len(features))], restore=None)


@pytest.mark.parametrize("is_stored", [False, True], ids=["in memory", "in a file"])
def test_a_batch_read_ahead_is_the_batch(tmp_path, is_stored):
    part = make_data(seed=0).train
    if is_stored:
        object.__setattr__(part, "features", stored(tmp_path, part.features))
    cpu = torch.device("cpu")
    wanted = [np.array([3, 1, 95]), np.array([0]), np.arange(20, 30)]
    with part.read_ahead(wanted, cpu) as batches:
        found = list(batches)
    assert [batch[0].dtype for batch in found] == [torch.float16] * 3
    for batch, clips in zip(found, wanted, strict=True):
        for one, other in zip(to_device(batch, cpu), part.batch(clips, cpu), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
