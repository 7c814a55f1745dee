"""What commands leave behind, as rows for tables.

A row is flat: labels are text or whole numbers, figures are floats, and ``intervals`` holds the
95 % intervals of some. Each function takes what was read from a source's result files, in order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safetensors import safe_open

from easyedit_mm_plugins.core.shipped import ASSETS

Row = dict[str, Any]
Results = Sequence[Any]
_KINDS = ("edit", "rephrase", "image_rephrase", "image_loc", "text_loc")
_LAYERS = re.compile(r"dualedit/(?:t(\d+))?-?(?:v(\d+))?(-gated)?")


def evaluation(results: Results) -> list[Row]:
    """The rows of ``summary.json`` of one or several runs, all metrics with their intervals."""
    return [_flat(row) for found in results for row in found["rows"]]


def _flat(row: Mapping[str, Any]) -> Row:
    labels = {key: row[key] for key in ("method", "backbone", "dataset", "protocol", "n")}
    gate = (row.get("settings") or {}).get("gate")
    if gate is not None:
        labels["gate"] = str(gate)
    return labels | figures(row["metrics"], row["intervals"])


def figures(
    metrics: Mapping[str, float | None], intervals: Mapping[str, Sequence[float] | None] = {}
) -> Row:
    """Metrics and intervals as a row has them, to two decimals."""
    found: Row = {key: round(float(v), 2) for key, v in metrics.items() if v is not None}
    bounds = {key: [round(float(x), 2) for x in pair] for key, pair in intervals.items() if pair}
    return found | ({"intervals": bounds} if bounds else {})


def memory(results: Results) -> list[Row]:
    """``benchmarks/memory.py``, one file a backbone."""
    return [
        {"backbone": found["backbone"], "method": row["method"], "edits": row["edits"]}
        | {"ms": round(row["ms"], 2), "growth": round(row["growth"], 3)}
        for found in results
        for row in found["rows"]
    ]


def gates(results: Results) -> list[Row]:
    """``benchmarks/dualedit_gates.py``."""
    (found,) = results
    return [
        {"backbone": row["backbone"], "gate": row["gate"], "n": found["cases"]}
        | {"threshold": f"{row['threshold']:.3g} ({row['chosen']})"}
        | figures({kind: row[kind] for kind in _KINDS})
        for row in found["rows"]
    ]


def variants(results: Results) -> list[Row]:
    """DualEdit's tables 1 and 3 and figure 5: a row's method names its layers and its gate."""
    rows = []
    for row in evaluation(results):
        found = _LAYERS.fullmatch(row["method"])
        if found is None:  # the shipped editor
            gate = "none" if row["method"].endswith("no-gate") else "its own"
            rows.append({**row, "adapters": "shipped editor", "text": None, "visual": None}
                        | {"gate": gate})  # fmt: skip
            continue
        text, visual = (None if layer is None else int(layer) for layer in found.groups()[:2])
        both = "both" if None not in (text, visual) else "text" if visual is None else "visual"
        rows.append({**row, "adapters": both, "text": text, "visual": visual}
                    | {"gate": "prompt-end" if found[3] else "none"})  # fmt: skip
    return rows


def dualedit_editors(results: Results) -> list[Row]:
    """``benchmarks/dualedit_table.py``, one file a backbone."""
    return [
        {"backbone": found["backbone"], "gate": row["label"], "n": row["cases"]}
        | {"protocol": "generated"}
        | figures(row["metrics"])
        for found in results
        for row in found["rows"]
    ]


def dualedit_speed(results: Results) -> list[Row]:
    """``benchmarks/dualedit_speed.py``: a row for training, and one for each gate."""
    rows = []
    for found in results:
        steps = {key: 1000 * value for key, value in found["steps"].items()}
        slow = steps["straightforward"]
        gains = {f"{key}_times": slow / steps[key] for key in ("first", "again")}
        rows.append({"backbone": found["backbone"], "what": "training"} | figures(steps | gains))
        for kind in dict.fromkeys(name.split(",")[0] for name in found["gate"]):
            costs = {
                name.partition(", ")[2]: 100 * (value - 1)
                for name, value in found["gate"].items()
                if name.split(",")[0] == kind
            }
            rows.append({"backbone": found["backbone"], "what": "gate", "gate": kind}
                        | figures(costs))  # fmt: skip
    return rows


def mscke_table2(results: Results) -> list[Row]:
    """Classifiers with Specificity and their own accuracy, then the differences case by case."""
    (found,) = results
    own = {row["classifier"]: row for row in found["scope"]}
    rows = []
    for row in evaluation(results):
        name = row["method"].partition("/")[2]
        scope = {"scope_accuracy": own[name]["values"]["balanced"]}
        bounds = {"scope_accuracy": own[name]["intervals"]["balanced"]}
        added = figures(scope, bounds)
        intervals = row.get("intervals", {}) | added["intervals"]
        rows.append({**row, **added, "what": "classifier", "classifier": name}
                    | {"intervals": intervals})  # fmt: skip
    return rows + _differences(found, ("first", "second", "metric"))


def mscke_table3(results: Results) -> list[Row]:
    """A line a cell: both classifiers' Specificity, and the difference case by case."""
    (found,) = results
    # What the differences are of: the hard pairs' Specificity where there is one.
    metric = next((gap["metric"] for gap in found.get("differences", ())), "specificity")
    rows: dict[tuple[str, str], Row] = {}
    for row in evaluation(results):
        method, _, kind = row["method"].partition("/")
        line = rows.setdefault((method, row["backbone"]), {**row, "method": method, "moved": "to"})
        name = "retrained" if kind == "retrained" else "transferred"
        line[name], bounds = row[metric], row.get("intervals", {}).get(metric)
        line.setdefault("intervals", {})[name] = bounds
        line["moved"] = "at home" if kind == "own" else "moved"
    for gap in _differences(found, ("method", "backbone")):
        line = rows[gap["method"], gap["backbone"]]
        line["difference"], line["intervals"]["difference"] = (
            gap["difference"], gap["intervals"]["difference"],
        )  # fmt: skip
    return list(rows.values())


def _differences(found: Mapping[str, Any], labels: Sequence[str]) -> list[Row]:
    return [
        {"what": "difference", **{key: gap[key] for key in labels}}
        | figures({"difference": gap["difference"]}, {"difference": gap["interval"]})
        for gap in found.get("differences", ())
    ]


def mscke_table4(results: Results) -> list[Row]:
    """A line for each base model, batch and situation, times of the parts beside each other."""
    rows = []
    for row in (row for found in results for row in found["costs"]):
        times = {name: part["time_ms"] for name, part in row["parts"].items()}
        share = row["parts"]["classifier"]["share_of_base"]
        labels = {key: row[key] for key in ("backbone", "batch", "situation", "rounds")}
        rows.append(labels | figures(times | {"share": share}))
    return rows


def mscke_figure4(results: Results) -> list[Row]:
    """Accuracies of both classifiers, and the counts behind them."""
    (found,) = results
    rows = []
    for row in found["figure"]:
        (right_in, wrong_in), (wrong_out, right_out) = row["confusion"]
        rows.append(
            {"task": row["task"], "method": row["method"], "backbone": row["backbone"]}
            | {"n": row["cases"], "inside": f"{right_in} / {wrong_in}"}
            | {"outside": f"{wrong_out} / {right_out}"}
            | figures(row["values"], row["intervals"])
        )
    return rows


def ft_strength(results: Results) -> list[Row]:
    """``benchmarks/ft_strength.py``."""
    rows = []
    for row in (row for found in results for row in found["rows"]):
        labels = {"backbone": row["backbone"], "method": row["method"], "n": row["cases"]}
        labels["protocol"] = "generated"
        labels["factor"] = "" if row["factor"] is None else f"{row['factor']:g}"
        labels |= {key: "{} of {}".format(*row[key]) for key in ("same", "other")}
        names = ("reliability", "locality", "specificity", "specificity_in", "specificity_out")
        values = {name: row[name] for name in names}
        rows.append(labels | figures(values, {"specificity": row["interval"]}))
    return rows


def easyedit_speed(results: Results) -> list[Row]:
    """``benchmarks/easyedit_speed.py``."""
    (found,) = results
    work, wall = found["work_ms"], found["wall_ms"]
    return [
        {"runner": name, "n": found["cases"]}
        | figures({"work_ms": work[name], "wall_ms": wall[name]})
        | figures({"times_faster": work["easyedit"] / work[name]})
        for name in work
    ]


def lora(results: Results) -> list[Row]:
    """``benchmarks/lora.py``."""
    (found,) = results
    return [
        {"backbone": backbone, "method": method, "n": found["cases"], "protocol": "generated"}
        | figures(values)
        for backbone, methods in found["backbones"].items()
        for method, values in methods.items()
    ]


def backbones(results: Results) -> list[Row]:
    """What the trainings of the embedded backbones noted in ``eval.json``, and their files."""
    rows = []
    for found in results:
        types = {k: v["exact_match"] for k, v in found["types"].items() if k != "fact"}
        lowest = min(types.values())
        weakest = " and ".join(k for k, v in types.items() if round(v) == round(lowest))
        path = ASSETS / found["backbone"] / "model.safetensors"
        with safe_open(path, "pt") as file:
            tensors = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
        means = {key: value for key, value in found.items() if isinstance(value, float)}
        rows.append(
            {"backbone": found["backbone"], "steps": found["steps"]}
            | {"parameters": sum(math.prod(shape) for shape in tensors)}
            | {"weakest": f"{weakest}, {lowest:.0f}"}
            | figures({**means, "file_mb": path.stat().st_size / 1e6})
        )
    return rows


def lifelong(results: Results) -> list[Row]:
    """A row a cell; of DualEdit each gate."""
    (found,) = results
    labels = ("backbone", "method", "edits", "table", "task", "protocol", "n")
    return [
        {key: row[key] for key in labels}
        | {"gate": row.get("gate", "")}
        | figures(row["metrics"], row["intervals"])
        for row in found["rows"]
    ]


def series(results: Results) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Backbone and facts of a figure of DualEdit's."""
    for found in results:
        yield from found["figure"].items()


def dualedit_figure2(results: Results) -> list[Row]:
    """KL under noise of sigma 1, a row a kind of token, a figure a layer."""
    return [
        {"backbone": backbone, "tokens": tokens}
        | {f"layer_{k}": round(float(v), 3) for k, v in enumerate(values)}
        for backbone, facts in series(results)
        for tokens, sigma, values in facts["kl"]
        if sigma == 1.0
    ]


def dualedit_figure4(results: Results) -> list[Row]:
    """The ROC area of the cosine by kind of token."""
    return [
        {"backbone": backbone, "tokens": tokens, "layer": facts["layer"]}
        | {"roc_area": round(float(found["auc"]), 4)}
        for backbone, facts in series(results)
        for tokens, found in facts["tokens"].items()
    ]


def full_size(results: Results) -> list[Row]:
    """``benchmarks/full_size.py``: shapes, and what ran on them or why it could not."""
    (found,) = results
    rows: list[Row] = []
    for row in found["rows"]:
        labels = {k: v for k, v in row.items() if not isinstance(v, (float, list, type(None)))}
        labels.pop("reason", None)
        if row["what"] == "run":
            labels["outcome"] = "cannot" if "reason" in row else "runs"
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        rows.append(labels | {key: float(f"{value:.4g}") for key, value in numbers.items()})
    return rows
