"""An approximate index of keys, for tables so large that comparing with all takes milliseconds.

The library is faiss, an extra of this package (``pip install easyedit-mm-plugins[index]``): cells
of keys around centroids, each key in one byte a number. Who searches compares with the exact keys
of what comes back.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from typing import Any

import numpy as np
from torch import Tensor

_SAMPLE = 40  # keys a cell, from which the cells are learned
_ROUNDS = 8  # of learning the cells


def available() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("faiss") is not None


class KeyIndex:
    """Keys by position, in the order in which they were added; safe to use from several threads.

    Args:
        keys: ``[N, Z]``, from which the cells are learned, too.
        metric: "dot" or "distance".

    Attributes:
        count: how many positions there are.
        learned: how many there were when the cells were learned.
    """

    def __init__(self, keys: Tensor, metric: str) -> None:
        import faiss

        kind = faiss.METRIC_INNER_PRODUCT if metric == "dot" else faiss.METRIC_L2
        self.learned, width = len(keys), keys.shape[1]
        cells = max(1, math.isqrt(self.learned))
        flat = faiss.IndexFlat(width, kind)
        eight = faiss.ScalarQuantizer.QT_8bit
        self._index: Any = faiss.IndexIVFScalarQuantizer(flat, width, cells, eight, kind)
        self._index.cp.niter, self._index.cp.min_points_per_centroid = _ROUNDS, 1
        self._index.cp.max_points_per_centroid = _SAMPLE
        some = np.random.default_rng(0).permutation(self.learned)[: _SAMPLE * cells]
        self._lock = threading.Lock()
        values = keys.numpy()
        self._index.train(values[np.sort(some)])
        self._index.nprobe = max(32, cells // 16)
        self._index.add(values)

    @property
    def count(self) -> int:
        """See the class."""
        return self._index.ntotal

    def add(self, keys: Tensor) -> None:
        """Append ``keys [n, Z]``."""
        with self._lock:
            self._index.add(keys.numpy())

    def search(self, queries: Tensor, count: int) -> np.ndarray:
        """For each of ``queries [B, Z]`` the ``count`` most promising positions; -1: no more."""
        with self._lock:
            return self._index.search(queries.contiguous().numpy(), count)[1]
