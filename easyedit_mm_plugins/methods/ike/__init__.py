"""IKE as a baseline: EasyEdit's own demonstrations and retrieval before a frozen backbone."""

from ..entries import METHODS

METHODS.add(
    name="ike",
    title="IKE",
    order=20,
    paper="Zheng et al. 2023, as EasyEdit's IKE",
    editor="easyedit_mm_plugins.methods.ike.model:IKE",
    settings="easyedit_mm_plugins.methods.ike.config:IKEHyperParams",
    needs_easyedit=True,
)
