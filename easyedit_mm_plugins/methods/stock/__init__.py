"""EasyEdit HEAD's own WISE, GRACE and LoRA as baselines, by its own code.

``config.py`` settings, by EasyEdit's names; ``model.py`` the editors; ``swap.py`` what an edit put
into the model, taken out and in again.
"""

from ..entries import METHODS

for _order, (_name, _title, _paper) in enumerate(
    (
        ("lora", "LoRA (EasyEdit)", "Hu et al. 2022, as EasyEdit"),
        ("grace", "GRACE (EasyEdit)", "Hartvigsen et al. 2023, as EasyEdit"),
        ("wise", "WISE (EasyEdit)", "Wang et al. 2024, as EasyEdit"),
    ),
    start=42,
):
    METHODS.add(
        name=_name,
        title=_title,
        order=_order,
        paper=_paper,
        editor=f"easyedit_mm_plugins.methods.stock.model:{_name.upper()}",
        settings=f"easyedit_mm_plugins.methods.stock.config:{_name.upper()}HyperParams",
        needs_easyedit=True,
    )
