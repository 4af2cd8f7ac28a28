"""Large results lie in memory that is kept for the next one: no two live results share it."""

import copy
import gc
import threading

import pytest
import torch

from lowbit import kernels

LARGE = (64, 1024)  # 256 KiB of floats


@pytest.fixture
def call():
    g = kernels.Geometry(LARGE[1], LARGE[1])
    words = torch.randint(-(2**62), 2**62, (1, LARGE[1], 1, LARGE[1] // 64))
    panel = kernels.prepare(words, g)
    return lambda x: kernels.bconv(x, panel, None, None, None, g)


def test_results_that_live_keep_their_values(call):
    inputs = [torch.randn(LARGE) for _ in range(6)]
    first = [call(x) for x in inputs]
    copies = [y.clone() for y in first]
    for x in inputs:
        call(x.neg())  # freed at once, and its memory taken again
    assert all(torch.equal(y, kept) for y, kept in zip(first, copies, strict=True))
    assert len({y.data_ptr() for y in first}) == len(first)


def test_a_view_keeps_the_memory_of_its_result(call):
    x = torch.randn(LARGE)
    row = call(x)[3]
    expected = row.clone()
    gc.collect()
    for _ in range(8):
        call(x.neg())
    assert torch.equal(row, expected)


def test_freed_memory_is_taken_again(call):
    if not kernels.available():
        pytest.skip("plain torch takes memory from torch")
    x = torch.randn(LARGE)
    y = call(x)
    place = y.data_ptr()
    del y
    assert call(x).data_ptr() == place


def test_results_are_tensors_as_any_other(call, tmp_path):
    y = call(torch.randn(LARGE))
    torch.save(y, tmp_path / "y.pt")
    assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), y)
    assert torch.equal(copy.deepcopy(y), y)
    assert y.device.type == "cpu"
    before = y.clone()
    assert torch.equal(y.add_(1), before + 1)


def test_results_may_be_freed_in_other_threads(call):
    x = torch.randn(LARGE)
    expected = call(x).clone()
    wrong = []

    def work():
        for _ in range(50):
            if not torch.equal(call(x), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
