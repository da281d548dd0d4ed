"""Threads of decompositions: one for small matrices, restored whatever happens."""

from __future__ import annotations

import pytest
import torch

from kfpbench.eigensolvers.lapack_threads import threads_for


@pytest.fixture(autouse=True)
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("order", "threads"), [(1, 1), (2999, 1), (3000, 2)])
def test_small_decompositions_get_one_thread(order, threads):
    with threads_for(order):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


def fail_inside():
    with threads_for(10):
        raise ValueError("inside")


def test_threads_are_restored_after_an_error():
    with pytest.raises(ValueError, match="inside"):
        fail_inside()
    assert torch.get_num_threads() == 2
