"""Peak memory while something runs: of the GPU if the model is on one, else of the process."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def release() -> None:
    """Free unused memory, so that a method's peak does not count what the one before it used.

    The C library keeps freed memory for later use, and so does torch on a GPU; both return it here.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim is not None:
            trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


class PeakMemory:
    """The highest use since :meth:`start`, in megabytes (10^6 bytes).

    On a GPU it is the memory that torch allocated there; else the process's resident memory. Both
    include the base model. Resident memory is measured on Linux only: elsewhere its peak cannot be
    reset, and the highest value since the process began says nothing about one method.

    Args:
        device: of the model; ``None`` counts as the CPU.
    """

    def __init__(self, device: Any = None) -> None:
        self.device = device
        self.on_gpu = str(device or "cpu").startswith("cuda")
        self.known = False

    def start(self) -> None:
        """Count from here."""
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
            self.known = True
            return
        try:
            _CLEAR.write_text("5")  # proc(5): resets the peak of the resident set
            self.known = True
        except OSError:
            self.known = False

    def megabytes(self) -> float | None:
        """The peak, or ``None`` where it cannot be measured."""
        if not self.known:
            return None
        if self.on_gpu:
            import torch

            return round(torch.cuda.max_memory_allocated(self.device) / 1e6, 1)
        try:
            lines = _STATUS.read_text().splitlines()
            (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        except (OSError, ValueError):
            return None
        return round(int(peak) * 1024 / 1e6, 1)
