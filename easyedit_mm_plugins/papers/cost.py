"""Time and memory of a few calls ("parts"), measured in turns.

Every round runs each part once, in a new random order, so that other work on the machine slows all
parts alike. On a CPU the processor time of this process is compared, which leaves out other work.
"""

from __future__ import annotations

import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

Part = Callable[[], object]


@dataclass
class Timing:
    """Milliseconds of one part, one value a round.

    Attributes:
        wall: time by the clock.
        work: processor time on a CPU, time on the device on a GPU.
    """

    wall: list[float]
    work: list[float]

    @property
    def wall_ms(self) -> float:
        """Median."""
        return statistics.median(self.wall)

    @property
    def work_ms(self) -> float:
        """Median."""
        return statistics.median(self.work)


def in_turns(
    parts: Mapping[str, Part],
    before: Mapping[str, Part],
    *,
    rounds: int,
    warm_up: int = 3,
    device: torch.device | str = "cpu",
) -> dict[str, Timing]:
    """Time every part once a round; ``before`` is run untimed ahead of its part.

    Raises:
        ValueError: there is no round.
    """
    if rounds < 1:
        raise ValueError("at least one round is needed")
    cuda = torch.device(device).type == "cuda"
    timings = {name: Timing([], []) for name in parts}
    order, rng = list(parts), random.Random(0)
    for turn in range(warm_up + rounds):
        rng.shuffle(order)
        for name in order:
            if name in before:
                before[name]()
            wall, work = _once(parts[name], cuda)
            if turn >= warm_up:
                timings[name].wall.append(wall)
                timings[name].work.append(work)
    return timings


def _once(part: Part, cuda: bool) -> tuple[float, float]:
    if cuda:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        clock = time.perf_counter()
        start.record()
        part()
        end.record()
        torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - clock), start.elapsed_time(end)
    clock, worked = time.perf_counter(), time.process_time()
    part()
    return 1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - worked)


def share(part: Timing, whole: Timing) -> float:
    """Median over rounds of ``part`` in percent of ``whole``."""
    return 100 * statistics.median(a / b for a, b in zip(part.work, whole.work, strict=True))


@dataclass
class Profile:
    """What ``torch.profiler`` reports of one call.

    Attributes:
        operations: how many operators ran.
        peak_mb: the most memory that the call allocated at once, in megabytes.
        slowest: the operators that took longest, with their share of the call's time in percent.
    """

    operations: int
    peak_mb: float
    slowest: dict[str, float]


def profile(
    part: Part,
    before: Part = lambda: None,
    device: torch.device | str = "cpu",
    *,
    warm_up: bool = True,
) -> Profile:
    """One call of ``part`` under the profiler, after one to warm up; ``before`` precedes both."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports that there is no GPU as an error
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    cuda = torch.device(device).type == "cuda"
    if warm_up:
        before()
        part()
    before()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with profiler(activities=kinds, profile_memory=True) as seen:
            part()
    found = [e for e in seen.key_averages() if e.key != "[memory]"]
    times = {e.key: e.self_device_time_total if cuda else e.self_cpu_time_total for e in found}
    total = sum(times.values()) or 1
    slowest = sorted(times, key=lambda key: -times[key])[:3]
    peak = torch.cuda.max_memory_allocated() - held if cuda else _peak(seen)
    return Profile(
        sum(e.count for e in found),
        peak / 1e6,
        {key: round(100 * times[key] / total, 1) for key in slowest},
    )


def _peak(seen: torch.profiler.profile) -> int:
    """The highest sum of allocations and releases, in the order in which they happened."""
    moves = [
        (event.time_range.start, event.cpu_memory_usage)
        for event in seen.events()
        if event.name == "[memory]"
    ]
    inside = [
        (event.time_range.start, event.self_cpu_memory_usage)
        for event in seen.events()
        if event.name != "[memory]" and event.self_cpu_memory_usage
    ]
    held = peak = 0
    for _, size in sorted(moves + inside):
        held += size
        peak = max(peak, held)
    return peak


def weight_bytes(*parts: object) -> int:
    """Bytes of all parameters and buffers of the modules among ``parts``, shared ones once."""
    seen: dict[int, int] = {}
    for part in parts:
        if isinstance(part, nn.Module):
            for tensor in (*part.parameters(), *part.buffers()):
                seen[tensor.data_ptr()] = tensor.nbytes
    return sum(seen.values())
