"""Where training of released-form adapters starts, on decoders whose tokens have a large norm.

Drawn plainly, every head begins with the mean of an edit sample's tokens, of which the answer is
one in dozens, and its change is a hundredth of a token's norm: training then stays at the answers'
prior for long. Here heads are first fitted to look at the token that is wanted, and values are set
by a linear map to a random code of it, any two equally far apart however alike their states
are; neither takes a pass through the model. Neither paper nor release says where to start; the
adapters' form is untouched, and an untrained adapter still changes nothing.

Shapes: R edits of a batch, N tokens of an edit sample, T queries, D hidden size, A width, H heads.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from .adapters import Adapter, ReleasedAdapter
from .config import AdapterConfig
from .packing import QuestionStates

STEPS, BATCH, RATE = 500, 48, 4e-3
_SIZE = 5.0  # root mean square of values
_REST = 0.05  # weight of tokens that nobody wants in what values are to be blind to
_PRIOR = 5.0  # how far apart tokens must be, in units of what else varies, not to be shrunk
_QUERIES = 4  # image tokens of a sample that ask for its answer


def start_at_answers(
    adapter: Adapter,
    config: AdapterConfig,
    edits: Sequence[QuestionStates],
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> float:
    """Fit queries, keys and values of ``adapter`` to edit samples' states.

    A text adapter's queries are the last token of a sample's prompt and the tokens of its answer,
    each of which is to find the answer's next token; the last one finds the sample's first text
    token, whose value stands for the answer's end. A visual adapter's queries are image tokens, to
    find the first.

    Args:
        config: the adapter's layer and tokens.
        edits: of training records, with their states.

    Returns:
        The share of attention that wanted tokens get in the last steps.

    Raises:
        ConfigError: an adapter of another form.
    """
    if not isinstance(adapter, ReleasedAdapter):
        raise ConfigError("start: answer is for adapters of the released form")
    with torch.no_grad():
        _set_values(adapter, config.layer, edits, seed)
    learning = [p for layer in (adapter.query, adapter.key) for p in layer.parameters()]
    optimizer = torch.optim.Adam(learning, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng, found = random.Random(seed), []
    for _ in range(steps):
        batch = rng.sample(list(edits), min(BATCH, len(edits)))
        share = attention_shares(adapter, config, batch, rng)
        optimizer.zero_grad()
        (-share.clamp(min=1e-9).log().mean()).backward()
        optimizer.step()
        schedule.step()
        found.append(float(share.detach().mean()))
    adapter.zero_grad()
    last = found[-max(1, steps // 10) :]
    return sum(last) / len(last) if last else 0.0


def wanted_tokens(
    config: AdapterConfig, edit: QuestionStates, rng: random.Random
) -> tuple[list[int], list[int]]:
    """Places of an edit sample's queries, and the place of the token that each is to find."""
    if config.tokens == "visual":
        image = edit.image.nonzero().flatten().tolist()
        asking = rng.sample(image, min(_QUERIES, len(image)))
        return asking, [edit.end + 1] * len(asking)
    wanted = answer_places(edit, config.layer)
    return [edit.end + i for i in range(len(wanted))], wanted


def answer_places(edit: QuestionStates, layer: int) -> list[int]:
    """Where an edit sample has its answer's tokens, in their order.

    The one that ends the answer is not in the sample. The first text token, which is much the same
    in all samples, stands for it.
    """
    places = list(range(edit.end + 1, len(edit.states[layer])))
    if len(edit.answer) > len(places):
        places.append(int((~edit.image).nonzero()[0]))
    return places


def attention_shares(
    adapter: ReleasedAdapter,
    config: AdapterConfig,
    edits: Sequence[QuestionStates],
    rng: random.Random,
) -> Tensor:
    """The attention ``[n, H]`` that the queries of ``edits`` give to the tokens they want."""
    states = [e.states[config.layer].to(adapter.key.weight) for e in edits]
    pairs = [wanted_tokens(config, e, rng) for e in edits]
    rows = [row for row, (asking, _) in enumerate(pairs) for _ in asking]
    asking = torch.cat([s[a] for s, (a, _) in zip(states, pairs, strict=True)])
    wanted = torch.tensor([w for _, places in pairs for w in places], device=asking.device)
    padded = nn.utils.rnn.pad_sequence(states, batch_first=True)
    lengths = torch.tensor([len(s) for s in states], device=padded.device)
    real = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    keys = adapter.key(adapter.norm_e(padded)).unflatten(-1, (adapter.heads, -1))
    query = adapter.query(adapter.norm_h(asking)).unflatten(-1, (adapter.heads, -1))
    scores = torch.einsum("nha,nkha->nhk", query, keys[rows]) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~real[rows][:, None], float("-inf")).softmax(-1)
    return weights.gather(-1, wanted[:, None, None].expand(-1, adapter.heads, 1))[..., 0]


def _set_values(
    adapter: ReleasedAdapter, layer: int, edits: Sequence[QuestionStates], seed: int
) -> None:
    """Values of an answer's token are a code of it, of the first text one of the answer's end.

    The mean state of each token goes to its code, by the map under which what else varies in the
    states is smallest (Fisher's discriminants), the tokens that nobody wants included.
    """
    known = sorted({i for e in edits for i in e.answer})
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(len(known), adapter.value.out_features, generator=generator) * _SIZE
    index = {token: n for n, token in enumerate(known)}
    states, others, targets = [], [], []
    for e in edits:
        own = adapter.norm_e(e.states[layer].to(adapter.value.weight))
        places = answer_places(e, layer)
        states.append(own[places])
        others.append(own[: e.end + 1])
        targets += [index[i] for i in e.answer[: len(places)]]
    tokens, rest = torch.cat(states), torch.cat(others)
    of = torch.zeros(len(known), len(tokens)).to(tokens)
    of[torch.tensor(targets), torch.arange(len(tokens))] = 1
    means = of @ tokens / of.sum(1, keepdim=True).clamp(min=1)
    middle = means.mean(0)
    # Every token counts alike, however often it is an answer.
    within = (tokens - means[targets]) / (len(known) * of.sum(1))[targets, None].sqrt()
    beside = rest - middle
    noise = within.T @ within + _REST * beside.T @ beside / max(1, len(beside))
    noise += 1e-5 * torch.eye(len(noise)).to(noise)
    solved = torch.linalg.solve(noise, (means - middle).T)  # [D, tokens]
    overlap = (means - middle) @ solved
    prior = _PRIOR * torch.eye(len(known)).to(noise)
    weight = solved @ torch.linalg.solve(overlap + prior, codes.to(noise))
    adapter.value.weight.copy_(weight.T)
    adapter.value.bias.copy_(-(middle @ weight))
