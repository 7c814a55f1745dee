"""MEND as a baseline: EasyEdit's own ``GradientTransform`` in the place of the package's.

EasyEdit's code, run as it is: the network, its normalisation and its running statistics. Everything
around it is :class:`Mend`, whose change of a weight equals that of EasyEdit's ``MEND.edit`` (tested
on both generations), because that method itself

* handles one edit at a time, and a second edit of an edited model fails;
* writes its device as ``cuda:{device}`` (release), so that it does not run on a CPU;
* knows ``blip2`` and ``minigpt4`` by name and no other vision-language model of this package.

What is put right from outside: statistics begin as "not a number", a first training step with a
single token is an error, and after loading weights the statistics start anew (``norm_init`` is
not saved).
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from ...host import easyedit as host
from . import Mend


def easyedit_transform() -> type[nn.Module]:
    """EasyEdit's ``GradientTransform`` with the corrections of the module's docstring.

    Raises:
        BridgeError: EasyEdit is not installed, or does not import.
    """
    theirs = host.load().module("trainer.algs.MEND").GradientTransform

    class GradientTransform(theirs):  # type: ignore[misc, valid-type]
        training: bool

        def __init__(self, *args: Any) -> None:
            announcing = logging.root.manager.disable
            logging.disable(logging.INFO)  # it announces every layer
            try:
                super().__init__(*args)
            finally:
                logging.disable(announcing)
            for name, buffer in self.named_buffers(recurse=False):
                buffer.fill_(1.0 if name.endswith("std") else 0.0)

        def forward(
            self, u: Tensor, v: Tensor, param_idx: int | None = None
        ) -> tuple[Tensor, Tensor]:
            self.norm_init = bool(self.k > 0)
            if not self.training or self.k + len(u) > 1:
                return super().forward(u, v, param_idx)
            with torch.no_grad():  # the first token of all: counted, nothing to divide by yet
                self.u_mean, self.v_mean = u[0].float().clone(), v[0].float().clone()
                self.k.fill_(1)
            self.training = False
            try:
                return super().forward(u, v, param_idx)
            finally:
                self.training = True

    return GradientTransform


class MEND(Mend):
    """:class:`Mend` with EasyEdit's own network; see the module's docstring.

    Raises:
        BridgeError: EasyEdit is not installed, or does not import.
    """

    name = "mend"

    @classmethod
    def network_class(cls) -> type[nn.Module]:
        """EasyEdit's, corrected."""
        return easyedit_transform()

    def describe(self) -> dict[str, Any]:
        """Whose code runs, what is edited, and the network's size."""
        whose = f"GradientTransform of EasyEdit ({host.load().generation})"
        return {"transform": whose, **super().describe()}
