"""EasyEdit itself: where it is, which generation, how it runs on a CPU, its models as backbones.

Nothing here knows this package's methods; hooks into EasyEdit are in ``bridge/``.
"""

from ..backbones.entries import BACKBONES

BACKBONES.add(
    name="blip2",
    title="BLIP-2 OPT-2.7B (EasyEdit)",
    order=10,
    loader="easyedit_mm_plugins.host.catalog:blip2",
    family="BLIP-2, EasyEdit's own class",
    weights="hugging_cache/, as EasyEdit's README says",
    licence="BSD 3-clause (LAVIS); OPT: OPT-175B licence, research only",
    easyedit="Blip2OPT",
    paper="blip2-opt",
    parameters=2e9,
    group="full-size",
)
BACKBONES.add(
    name="minigpt4",
    title="MiniGPT-4 Vicuna-7B (EasyEdit)",
    order=11,
    loader="easyedit_mm_plugins.host.catalog:minigpt4",
    family="MiniGPT-4, EasyEdit's own class",
    weights="hugging_cache/, as EasyEdit's README says",
    licence="BSD 3-clause; Vicuna: Llama licence",
    easyedit="MiniGPT4",
    paper="minigpt4",
    parameters=6e9,
    group="full-size",
)
