"""``easyedit-mm data build-fgvedit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import ConfigError
from .options import AllowOutside, Images

STOPPED = 3  # exit code of a build that stopped at its budget


def build_fgvedit(
    out: Annotated[
        Path, typer.Option(help="Folder for the benchmark; a stopped build in it continues.")
    ],
    source: Annotated[
        str, typer.Option(help="vqav2, e-vqa, easy-vqa, scenes or table (CSV, JSON Lines).")
    ] = "vqav2",
    questions: Annotated[list[Path] | None, typer.Option(help="vqav2: question files.")] = None,
    annotations: Annotated[list[Path] | None, typer.Option(help="vqav2: annotations.")] = None,
    files: Annotated[list[Path] | None, typer.Option(help="e-vqa, table: the files.")] = None,
    images: Images = None,
    allow_outside: AllowOutside = False,
    nq: Annotated[Path | None, typer.Option(help="Natural Questions, for locality.")] = None,
    n: Annotated[int | None, typer.Option(min=1, help="scenes: number of scenes.")] = None,
    split: Annotated[str | None, typer.Option(help="easy-vqa: train or test.")] = None,
    judge: Annotated[str, typer.Option(help="chat or local.")] = "chat",
    model: Annotated[
        str, typer.Option(help="The judge model's name at its endpoint, or a folder (local).")
    ] = "gpt-4o-mini",
    base_url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint.")] = None,
    key_env: Annotated[
        str, typer.Option(help="Environment variable with the key.")
    ] = "OPENAI_API_KEY",
    params: Annotated[str | None, typer.Option(help="Further request parameters, as JSON.")] = None,
    max_side: Annotated[
        int, typer.Option(min=32, help="Larger images are scaled down to this.")
    ] = 512,
    retries: Annotated[
        int, typer.Option(min=0, help="Further tries after rate limits and errors.")
    ] = 6,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one request.")] = 60,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    budget: Annotated[
        str | None, typer.Option(help="Stop before exceeding, e.g. requests=1000,tokens=2e6,usd=5")
    ] = None,
    prices: Annotated[
        str, typer.Option(help="US dollars per million tokens, in and out.")
    ] = "0.15,0.60",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate requests and cost.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of images, from the first.")
    ] = None,
    max_questions: Annotated[
        int | None, typer.Option(min=2, help="Number of questions per image.")
    ] = None,
    alt: Annotated[
        str, typer.Option(help="Source of new answers: distribution or judge.")
    ] = "distribution",
    both_sides: Annotated[
        bool,
        typer.Option(
            "--both-sides", help="Leave out records that lack questions in or out of scope."
        ),
    ] = False,
    balance: Annotated[
        str,
        typer.Option(help="texts: leave out hard questions whose texts tell the scope; or none."),
    ] = "none",
    balance_to: Annotated[
        float,
        typer.Option(help="Percent that a learned judge of texts may reach after --balance."),
    ] = 55.0,
    test_share: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of images in the test file.")
    ] = 0.25,
    cache: Annotated[
        Path | None, typer.Option(help="File of replies; by default OUT/answers.jsonl.")
    ] = None,
    device: Annotated[str, typer.Option(help="local judge: cpu, cuda ...")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="local judge: bfloat16 ...")] = None,
    seed: Annotated[int, typer.Option(help="Of answers, locality and the split.")] = 0,
) -> None:
    """Build a benchmark like FGVEdit from questions about images (MSCKE section 4.2)."""
    from ..core.console import CONSOLE, progress_bars
    from ..data.tools.construct import (
        AnswerCache,
        Budget,
        BudgetSpent,
        BuildConfig,
        build,
        estimate,
        open_source,
    )
    from ..data.tools.construct.nq import read_nq

    options: dict[str, Any] = {"questions": questions, "annotations": annotations, "files": files}
    if images is None and source == "scenes":
        images = out / "images"
    opened = open_source(
        source, **options, images=images, n=n, split=split, allow_outside=allow_outside
    )
    given: Any = alt  # BuildConfig checks it
    how: Any = balance
    config = BuildConfig(
        seed,
        limit,
        max_questions,
        given,
        test_share,
        both_sides,
        balance=how,
        balance_to=balance_to,
    )
    limits = Budget.parse(budget, _prices(prices))
    asked = _judge(
        judge,
        model,
        base_url=base_url,
        key_env=key_env,
        budget=limits,
        max_side=max_side,
        retries=retries,
        timeout=timeout,
        params=_parameters(params),
        device=device,
        dtype=dtype,
        dry_run=dry_run,
    )
    answers = AnswerCache(cache or out / "answers.jsonl")
    if dry_run:
        guess = estimate(opened, asked, config, answers)
        guess["cost about"] = f"${limits.cost(guess['tokens in'], guess['tokens out']):.2f}"
        for key, value in guess.items():
            CONSOLE.print(f"{key}: {value:,}" if isinstance(value, int) else f"{key}: {value}")
        return
    locality = read_nq(nq) if nq is not None else list(opened.example_nq)
    if not locality:
        raise ConfigError(
            f"the source {source} has no locality questions of its own",
            remedy="give --nq FILE (easyedit-mm data fetch nq-open)",
        )
    try:
        with progress_bars() as bars:
            result = build(
                opened,
                asked,
                locality,
                out,
                config,
                cache=answers,
                concurrency=concurrency,
                progress=bars("images"),
            )
    except BudgetSpent as stop:
        CONSOLE.print(f"stopped: {stop.message}", markup=False)
        CONSOLE.print(f"{len(answers):,} answers are kept; {stop.remedy}", markup=False)
        raise typer.Exit(STOPPED) from None
    except KeyboardInterrupt:
        CONSOLE.print("stopped; start the same command again to go on")
        raise typer.Exit(130) from None
    CONSOLE.print(f"{len(result.train):,} training and {len(result.test):,} test records in {out}")
    for reason, count in result.dropped.items():
        CONSOLE.print(f"  left out, {reason}: {count:,}")
    if result.balance:
        about = result.balance
        left = about["left out to match"] + about["left out as told too surely"]
        CONSOLE.print(f"  hard questions left out because texts tell their scope: {left:,}")
        for when in ("accuracy before", "accuracy"):
            value = "too few questions" if about[when] is None else f"{about[when]} %"
            CONSOLE.print(f"  a judge of texts, {when}: {value}")
    if result.agreement:
        for side in ("in", "out"):
            one = result.agreement[side]
            values = ", ".join(f"{k} {v:.3f}" for k, v in one.items() if v is not None)
            CONSOLE.print(f"  labels '{side}' against the exact ones: {values}")
    CONSOLE.print(f"  asked: {limits.summary()}", markup=False)


def _judge(kind: str, model: str, *, dry_run: bool, **options: Any) -> Any:
    from ..data.tools.construct.judge import ChatJudge

    device, dtype = options.pop("device"), options.pop("dtype")
    if kind == "chat":
        if dry_run and options["base_url"] is None:  # nothing is sent, so no key is needed
            options["base_url"] = "http://127.0.0.1:9/v1"
        return ChatJudge(model, **options)
    if kind != "local":
        raise ConfigError(f"unknown judge {kind!r}; known: chat, local")
    from ..data.tools.construct.local_judge import LocalJudge

    return LocalJudge(model, device=device, dtype=dtype)


def _prices(text: str) -> tuple[float, float]:
    try:
        first, second = (float(x) for x in text.split(","))
    except ValueError:
        raise ConfigError(f"prices is {text!r}; write for example 0.15,0.60") from None
    return first, second


def _parameters(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise ConfigError(f"params is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError("params is not a JSON object")
    return value
