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
            return number
        self.begun.release()
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                stopping.check()
                time.sleep(0.001)
        except KeyboardInterrupt:
            self.ended.append(number)
            raise
        return number


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
