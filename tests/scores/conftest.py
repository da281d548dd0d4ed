"""What tests of scores share: a spy on the bytes that operations hold."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """The peak of the bytes of storages that operations made and that were still alive, whoever frees them."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[torch.UntypedStorage, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_iter((args, kwargs)) if self._dense(leaf)}
        for leaf in tree_iter(result):
            if self._dense(leaf):
                storage = leaf.untyped_storage()
                if storage._cdata not in given:
                    self.live[storage._cdata] = (storage._weak_ref(), storage.nbytes())
        for key, (reference, _) in list(self.live.items()):
            if torch.UntypedStorage._expired(reference):
                torch.UntypedStorage._free_weak_ref(reference)
                del self.live[key]
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result

    @staticmethod
    def _dense(leaf: object) -> bool:
        return isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided


@pytest.fixture
def live_bytes() -> LiveBytes:
    return LiveBytes()
