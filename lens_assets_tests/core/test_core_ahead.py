"""Streams made ahead: order, exceptions, and how far ahead."""

import threading
import time

import pytest

from lens_assets.science.ahead import mapped


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_items_whoever_is_ready_first(threads):
    def slow(i):
        time.sleep(0.002 * (i % 3 == 0))
        return i * i

    assert list(mapped(slow, range(20), threads)) == [i * i for i in range(20)]
    assert list(mapped(slow, [], threads)) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_is_raised_in_its_place(threads):
    def work(i):
        if i == 4:
            raise ValueError("the fifth")
        return i

    stream = mapped(work, range(9), threads)
    assert [next(stream) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="the fifth"):
        next(stream)


def test_no_more_than_the_threads_are_made_before_they_are_asked_for():
    made, lock = [], threading.Lock()

    def work(i):
        with lock:
            made.append(i)
        return i

    stream = mapped(work, range(100), 3)
    assert next(stream) == 0
    time.sleep(0.05)
    assert len(made) <= 4
    stream.close()
    time.sleep(0.05)
    assert len(made) <= 4
