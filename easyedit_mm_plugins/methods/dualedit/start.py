"""Where training of released-form adapters starts, on decoders whose tokens have a large norm.

Drawn plainly, every head begins with the mean of an edit sample's tokens, of which the answer is
one in dozens, and its change is a hundredth of a token's norm: training then stays at the answers'
prior for long. Here heads and values are first fitted so that the answer can be read off the
attention's outcome, which takes no pass through the model. Neither paper nor release says where to
start; the adapters' form is untouched, and an untrained adapter still changes nothing.

Shapes: R edits of a batch, N tokens of an edit sample, T queries, D hidden size, A width.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from .adapters import Adapter, ReleasedAdapter
from .config import AdapterConfig
from .frozen import Frozen

STEPS, BATCH, RATE = 500, 64, 4e-3
_SIZE = 5.0  # root mean square of values
_QUERIES = 4  # image tokens of a sample that ask for its answer


def start_at_answers(
    adapter: Adapter,
    config: AdapterConfig,
    edits: Sequence[Frozen],
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> float:
    """Fit queries, keys and values of ``adapter`` to edit samples' states.

    A text adapter's queries are the last token of a sample's prompt and the tokens of its answer,
    each of which is to find the answer's next token; a visual one's are image tokens, which are to
    find its first.

    Args:
        config: the adapter's layer and tokens.
        edits: of training records, with their states.

    Returns:
        The share of right tokens in the last steps.

    Raises:
        ConfigError: an adapter of another form.
    """
    if not isinstance(adapter, ReleasedAdapter):
        raise ConfigError("start: answer is for adapters of the released form")
    device = adapter.query.weight.device
    known = sorted({i for e in edits for i in e.answer})
    index = {token: n for n, token in enumerate(known)}
    rng, found = random.Random(seed), []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        readout = nn.Linear(adapter.value.out_features, len(known)).to(device)
    learning = [adapter.query, adapter.key, adapter.value, readout]
    parameters = [p for layer in learning for p in layer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = rng.sample(list(edits), min(BATCH, len(edits)))
        outcome, wanted = _ask(adapter, config, batch, rng)
        targets = torch.tensor([index[i] for i in wanted], device=device)
        scores = readout(outcome)
        optimizer.zero_grad()
        F.cross_entropy(scores, targets).backward()
        optimizer.step()
        schedule.step()
        found.append(float((scores.argmax(-1) == targets).float().mean()))
    with torch.no_grad():
        outcome, _ = _ask(adapter, config, list(edits)[: 4 * BATCH], rng)
        mean = outcome.mean(0)
        scale = _SIZE / (outcome - mean).pow(2).mean().sqrt().clamp(min=1e-6)
        adapter.value.weight *= scale
        adapter.value.bias.copy_((adapter.value.bias - mean) * scale)
    adapter.zero_grad()
    last = found[-max(1, steps // 10) :]
    return sum(last) / len(last) if last else 0.0


def _ask(
    adapter: ReleasedAdapter, config: AdapterConfig, edits: Sequence[Frozen], rng: random.Random
) -> tuple[Tensor, list[int]]:
    """What the attention gives queries of ``edits``, ``[n, A]``, and the tokens wanted of it."""
    places, wanted = [], []
    for e in edits:
        if config.tokens == "text":
            own = range(e.end, min(e.end + len(e.answer), len(e.states[config.layer])))
            wanted += e.answer[: len(own)]
        else:
            image = e.image.nonzero().flatten().tolist()
            own = rng.sample(image, min(_QUERIES, len(image)))
            wanted += e.answer[:1] * len(own)
        places.append(torch.tensor(list(own), dtype=torch.long))
    states = [e.states[config.layer].to(adapter.key.weight) for e in edits]
    padded = nn.utils.rnn.pad_sequence(states, batch_first=True)
    lengths = torch.tensor([len(s) for s in states], device=padded.device)
    mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    asking = nn.utils.rnn.pad_sequence(
        [s[p.to(s.device)] for s, p in zip(states, places, strict=True)], batch_first=True
    )
    outcome = adapter.mix(asking, *ReleasedAdapter.memory(adapter, padded), mask)
    counts = torch.tensor([len(p) for p in places], device=padded.device)
    real = torch.arange(asking.shape[1], device=padded.device) < counts[:, None]
    return outcome[real], wanted
