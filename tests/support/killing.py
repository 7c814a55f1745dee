"""A training that is killed before one of its steps."""

from __future__ import annotations

import pytest


class Killed(Exception):
    """The process is gone."""


def run_until_killed(trainer, steps: int) -> None:
    """``trainer.run()``, which is killed after so many steps."""
    step = trainer.train_step

    def until_killed():
        if trainer.step == steps:
            raise Killed
        return step()

    trainer.train_step = until_killed
    with pytest.raises(Killed):
        trainer.run()
