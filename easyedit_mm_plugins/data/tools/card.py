"""A data card to publish with a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.files import read_json, write_text
from .stats import describe, markdown

_TEMPLATE = """---
pretty_name: {name}
task_categories:
- visual-question-answering
language:
- en
license: {license}
tags:
- model-editing
- knowledge-editing
- multimodal
size_categories:
- {size}
---

# {name}

<!-- TODO: one paragraph: what this benchmark measures and for whom. -->

Edits of vision-language models, in the schema of FGVEdit: an edit is a question about an image and
a new answer; a good editor changes what follows from it and nothing else.

## Fields

| field | meaning |
|---|---|
| `case_id` | unique within the data set |
| `image` | the picture |
| `src`, `alt`, `pred` | the edit's question, its new answer, the answer before |
| `rephrase` | the same question in other words; the answer is `alt` |
| `fg_gen_q`, `fg_gen_a` | in visual scope: a question that follows, its answer after the edit |
| `fg_loc_q`, `fg_loc_a` | out of visual scope: same image, answer unchanged |
| `fg_gen_hard`, `fg_loc_hard` | whether the scope cannot be told from the text alone |
| `fg_extra` | further questions of both scopes; `hard` and `kind` where they are known |
| `loc`, `loc_ans` | a text-only question that the edit must not touch |

## Figures

{tables}
## How it was made

{built}

## Sources and licences

<!-- TODO: name every source of images and questions with its licence. VQAv2's annotations are
CC BY 4.0; COCO's images are under the Flickr terms of use; Natural Questions is CC BY-SA 3.0. -->

## Known limits

<!-- TODO: what the labels were checked against, and with which outcome. -->
- Scope labels are a model's judgement unless the source knows them exactly.
- Counterfactual answers are plausible, not true: do not train a model for facts on them.
"""


def card(path: str | Path, *, name: str | None = None, license: str = "other") -> str:
    """A README.md for the record files of a folder, with what ``build.json`` says of the build.

    Raises:
        DataError: a file cannot be read.
    """
    path = Path(path)
    stats = describe(path)
    total = sum(one["records"] for one in stats.values())
    size = "n<1K" if total < 1000 else "1K<n<10K" if total < 10_000 else "10K<n<100K"
    protocol = path / "build.json" if path.is_dir() else path.parent / "build.json"
    built = "<!-- TODO: how the records were made. -->"
    if protocol.exists():
        built = _built(read_json(protocol))
    return _TEMPLATE.format(
        name=name or path.resolve().stem,
        license=license,
        size=size,
        tables=markdown(stats),
        built=built,
    )


def write_card(path: str | Path, out: str | Path, **options: Any) -> None:
    """Write :func:`card` to ``out``."""
    write_text(out, card(path, **options))


def _built(protocol: dict[str, Any]) -> str:
    lines = [
        "As section 4.2 of the MSCKE paper says, by `easyedit-mm data build-fgvedit`:",
        "",
        f"- data: {_flat(protocol.get('data'))}",
        f"- judge: {_flat(protocol.get('judge'))}",
        f"- settings: {_flat(protocol.get('config'))}",
        f"- questions judged: {protocol.get('questions judged')}",
        f"- images left out: {_flat(protocol.get('images left out'))}",
    ]
    if protocol.get("balance"):
        lines.append(f"- balanced by texts: {_flat(protocol['balance'])}")
    known = protocol.get("agreement")
    if known:
        for side in ("in", "out"):
            one = {k: round(v, 4) if v is not None else None for k, v in known[side].items()}
            lines.append(f"- labels '{side}' against the exact ones: {_flat(one)}")
    return "\n".join(lines)


def _flat(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
