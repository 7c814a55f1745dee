"""Run EasyEdit's own code on a CPU: what it moves to ``cuda:N`` stays on the CPU.

EasyEdit's PyPI release has ``cuda:{device}`` in its editor, SERAC, MEND and IKE, whatever
``hparams.device`` is. Inside :func:`on_cpu` every torch call that names a CUDA device gets the
CPU instead, so that ``MultimodalEditor`` and its algorithms run with ``device: 0``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_MOVES = (torch.Tensor.to, torch._C._nn._parse_to)  # of tensors, and of modules


class _CpuMode(TorchFunctionMode):
    """Reads every torch call's arguments; see the module's docstring."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.device:
            return _cpu(func(*args, **kwargs))
        if "device" in kwargs:
            kwargs["device"] = _cpu(kwargs["device"], indices=True)
        return func(*(_cpu(a, indices=func in _MOVES) for a in args), **kwargs)


def _cpu(value: Any, *, indices: bool = False) -> Any:
    """``value``, or the CPU if it names a CUDA device; a bare index does so in few places."""
    if isinstance(value, torch.device):
        cuda = value.type == "cuda"
    elif isinstance(value, str):
        cuda = value.split(":")[0] == "cuda"
    else:
        cuda = indices and isinstance(value, int) and not isinstance(value, bool)
    return torch.device("cpu") if cuda else value


@contextmanager
def on_cpu(always: bool = False) -> Iterator[None]:
    """EasyEdit's own methods run on the CPU inside the block, where there is no CUDA.

    Args:
        always: on the CPU even where there is CUDA.
    """
    if torch.cuda.is_available() and not always:
        yield
        return
    with _CpuMode():
        yield
