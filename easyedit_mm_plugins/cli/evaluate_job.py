"""``easyedit-mm evaluate``: methods on backbones into one run folder, by one process or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from ..core.console import CONSOLE, progress_bars
from ..core.distributed import Ranks
from ..core.loggers import check_loggers, open_loggers
from ..evaluation import Protocol, RunFolder, jobs
from ..evaluation.grid import BackboneSpec, DataSpec
from ..evaluation.metrics import suite_named
from .common import resumable, run_name, say_skipped, show_run


def evaluate_methods(
    methods: Sequence[str],
    backbones: Sequence[str],
    data: DataSpec,
    *,
    runs: Path,
    name: str | None = None,
    protocol: str = "generated",
    batch_size: int = 32,
    folders: Mapping[str, str] | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    device_map: str | None = None,
    overwrite: bool = False,
    log: Sequence[str] = (),
) -> RunFolder:
    """Measure, summarise and show; under a launcher every process measures its share of the cases.

    Args:
        backbones: as :meth:`BackboneSpec.parse` takes them.
        folders: of trained editors, by method.

    Raises:
        ConfigError, DataError, RunError: before or while measuring; finished cases are kept.
    """
    check_loggers(log)
    rules, ranks = Protocol(protocol), Ranks.here()
    if data.suite is not None:
        suite_named(data.suite)
    device = ranks.device(device)
    bases = [
        BackboneSpec.parse(text, device=device, dtype=dtype, device_map=device_map)
        for text in backbones
    ]
    jobs.check_names(methods, [base.name for base in bases])
    records = data.load()
    if ranks.first:
        say_skipped(records)
    stored = "float32" if device == "cpu" else "as stored"  # what load_backbone does
    run = _open(
        runs / (name or run_name([*methods], [b.label for b in bases], records.name, protocol)),
        records,
        rules,
        {"batch_size": batch_size, "device": device, "dtype": dtype or stored},
        overwrite,
        ranks,
    )
    with resumable(), progress_bars(None if ranks.first else Console(quiet=True)) as bar:
        for base in bases:
            jobs.measure(
                jobs.editor_makers(methods, base.load(), folders, records.task),
                records,
                rules,
                run,
                batch_size=batch_size,
                suite=records.suite,
                progress=lambda label, base=base: bar(f"{label} on {base.label}"),
                ranks=ranks,
            )
    ranks.wait()
    if ranks.first:
        rows = run.summarise()
        with open_loggers(log, run.path, config=run.config) as loggers:
            loggers.log_rows(rows)
        show_run(run, rows)
        CONSOLE.print(f"written to {run.path}/", markup=False)
    ranks.leave()
    return run


def _open(
    path: Path,
    records: jobs.Records,
    protocol: Protocol,
    execution: dict[str, object],
    overwrite: bool,
    ranks: Ranks,
) -> RunFolder:
    """The run folder; the first process makes it, the others find it."""
    options = {"suite": records.suite, "execution": execution}
    if ranks.first:
        run = jobs.open_run(path, records, protocol, overwrite=overwrite, **options)
        ranks.wait()
        return run
    ranks.wait()
    return jobs.open_run(path, records, protocol, **options)
