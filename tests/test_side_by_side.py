from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

from stemsplit.options import RuntimeOptions
from stemsplit.separation import stopping
from stemsplit.separation.stopping import Stop
from stemsplit.separation.stream import side_by_side
from stemsplit.zoo.ref import ModelRef

needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="needs OpenVINO")
PATIENCE = 20.0  # a test that fails ends after as many seconds


class Endless:
    """Work that returns the first window and never finishes the others, unless it is stopped."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.ended = []

    def __call__(self, number):
        if number == 0:
            yield number
            return
        self.begun.release()
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                stopping.check()
                time.sleep(0.001)
        except KeyboardInterrupt:
            self.ended.append(number)
            raise
        yield number


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_windows(workers):
    def work(number):
        for part in range(number % 3):
            time.sleep(0.001 * (7 - number))
            yield number, part

    found = list(side_by_side(work, ((number,) for number in range(7)), workers))
    assert found == [(number, part) for number in range(7) for part in range(number % 3)]


def test_the_first_results_of_a_window_come_while_it_is_in_work():
    taken = threading.Event()

    def work(number):
        yield number
        assert taken.wait(PATIENCE)

    stream = side_by_side(work, ((number,) for number in range(3)), 2)
    assert next(stream) == 0
    taken.set()
    assert list(stream) == [1, 2]


def test_an_error_follows_the_results_before_it():
    def work(number):
        yield number
        if number == 1:
            raise ZeroDivisionError

    stream = side_by_side(work, ((number,) for number in range(9)), 2)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_whoever_closes_a_stream_stops_the_segments_in_work():
    work = Endless()
    stream = side_by_side(work, ((number,) for number in range(9)), 2)
    assert next(stream) == 0
    assert work.begun.acquire(timeout=PATIENCE)
    assert work.begun.acquire(timeout=PATIENCE)
    stream.close()
    assert sorted(work.ended) == [1, 2]


def test_a_stop_ends_the_wait_for_a_segment_and_the_segments():
    work, stop = Endless(), Stop()
    with ThreadPoolExecutor(1, initializer=stop.apply_here) as pool:
        stream = pool.submit(lambda: list(side_by_side(work, ((number,) for number in range(9)), 2)))
        assert work.begun.acquire(timeout=PATIENCE)
        stop.set()
        with pytest.raises(KeyboardInterrupt):
            stream.result(timeout=PATIENCE)
    assert work.ended


def test_the_end_of_one_stream_stops_no_other():
    outer = Stop()
    inner = Stop(within=outer)
    inner.set()
    outer.check()
    with pytest.raises(KeyboardInterrupt):
        inner.check()


@pytest.mark.parametrize("batch", [None, 32])
@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_networks_stop_between_their_parts(runtime, batch):
    """All runtimes: the default in parts, or in batches."""
    network = ModelRef.parse("band-transformer").load(RuntimeOptions(runtime=runtime, batch=batch)).network
    views, bins = 4, 1025
    features = np.zeros((views, 2000, bins), np.float32)
    stop = Stop()
    stop.set()
    with (
        ThreadPoolExecutor(1, initializer=stop.apply_here) as pool,
        pytest.raises(KeyboardInterrupt),
    ):
        pool.submit(network, features).result()
