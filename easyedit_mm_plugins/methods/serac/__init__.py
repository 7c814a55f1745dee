"""SERAC as a baseline: EasyEdit's own scope code, with the counterfactual model of MSCKE."""

from ..entries import METHODS

METHODS.add(
    name="serac",
    title="SERAC",
    order=30,
    paper="Mitchell et al. 2022, as EasyEdit's SERAC_MULTI",
    editor="easyedit_mm_plugins.methods.serac.model:SERAC",
    needs_easyedit=True,
    trained=True,
)
