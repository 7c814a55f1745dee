"""The settings of EasyEdit's own SERAC (``SERAC_MULTI``), which its own code reads.

They are for its own base models and for nothing here but ``easyedit-mm hparams show`` and
``bridge.hparams.read_hparams``; this package's SERAC takes ``archive`` alone.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..settings import Count, EasyEditLoopHParams, Flag, Number, Text, Weight, settings_class


@settings_class
class EasyEditSeracHyperParams(EasyEditLoopHParams):
    """EasyEdit's keys and, as defaults, the values of its file for BLIP-2."""

    small_name: Text | None = None
    """The counterfactual model."""
    cls_name: Text = "hugging_cache/distilbert-base-cased"
    """The scope classifier's encoder."""
    cls_class: str = "AutoModel"
    """Its class."""
    inner_params: list[str] | None = None
    """Parameters of the base model, named as EasyEdit names them."""
    edit_lr: Weight = 1e-2
    """Learning rate of an edit."""
    lr_lr: Weight = 0.0
    """Learning rate of the learning rates."""
    cedit: Weight = 0.1
    """Weight of the loss on the edit."""
    iedit: Weight = 0.1
    """Weight of the loss on the rephrased image."""
    cloc: Weight = 1.0
    """Weight of the loss on locality."""
    cbase: Weight = 1.0
    """Weight of the base model's own loss."""
    dropout: Number = 0.0
    """EasyEdit."""
    supervised: Flag = False
    """True crashes in EasyEdit."""
    soft_weighting: Flag = False
    """EasyEdit."""
    train_base: Flag = False
    """EasyEdit."""
    no_grad_layers: int | None = None
    """EasyEdit."""
    checkpoint_grad: Flag = False
    """EasyEdit."""
    cross_attend: Flag = False
    """EasyEdit."""
    cos: Flag = False
    """EasyEdit."""
    square: Flag = True
    """EasyEdit."""
    bound_embeds: Flag = False
    """EasyEdit."""
    use_all_negatives: Flag = False
    """EasyEdit."""
    freeze: Any = None
    """EasyEdit."""
    freeze_cntr: Flag = False
    """True crashes in EasyEdit."""
    dist_heads: Count = 1
    """EasyEdit."""
    lora: Any = None
    """EasyEdit."""
    unlikelihood: Flag = True
    """EasyEdit."""
    max_iters: Count | None = 50000
    """Batches."""
    batch_size: Count = 1
    """EasyEdit is wrong above 1."""
    edit_bs: Count = 1
    """Edits."""
    early_stop_key: str = "loss/total_edit_val"
    log_errors: Flag = False
    """EasyEdit."""
    val_steps: Count | None = 1000
    eval_only: Flag = True
    save: Flag = False

    _alg: ClassVar[str] = "SERAC_MULTI"
    _title: ClassVar[str] = "EasyEdit's SERAC"


@settings_class
class EasyEditSeracTrainingHyperParams(EasyEditSeracHyperParams):
    """The same for training, where EasyEdit calls the method ``alg``."""

    eval_only: Flag = False
    exact_match: Flag = True
    alg: str = "SERAC_MULTI"
    """EasyEdit: the method."""

    _name_key: ClassVar[str] = "alg"
