"""A limit on requests, tokens and dollars; a build stops before it exceeds the limit."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ....core.errors import ConfigError, EasyEditMMError
from ....core.registry import did_you_mean

_KEYS = ("requests", "tokens", "usd")


class BudgetSpent(EasyEditMMError):
    """The next request might exceed the budget. Answers received so far are kept."""


@dataclass
class Budget:
    """Limits of a build, and how much of them is used. Several threads may share one budget.

    Every request counts, also a failed one. Tokens are those that the endpoint reports, or an
    estimate where it reports none; while a request is under way its estimate is reserved.

    Attributes:
        requests, tokens, usd: limits of this run; None: no limit.
        prices: US dollars per million tokens, in and out.
    """

    requests: int | None = None
    tokens: int | None = None
    usd: float | None = None
    prices: tuple[float, float] = (0.15, 0.60)
    used_requests: int = 0
    used_in: int = 0
    used_out: int = 0
    _held: tuple[int, int] = (0, 0)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def parse(cls, text: str | None, prices: tuple[float, float] = (0.15, 0.60)) -> Budget:
        """A budget from ``"requests=1000,tokens=2e6,usd=5"``; a number alone means requests.

        Raises:
            ConfigError: an unknown key, or a value that is not a number of 0 or more.
        """
        limits: dict[str, float] = {}
        for part in (text or "").split(","):
            if not part.strip():
                continue
            key, _, value = part.rpartition("=")
            key = key.strip() or "requests"
            if key not in _KEYS:
                raise ConfigError(f"unknown budget {key!r}; {did_you_mean(key, list(_KEYS))}")
            try:
                limits[key] = float(value)
            except ValueError:
                raise ConfigError(f"budget {key} is {value.strip()!r}, not a number") from None
            if not 0 <= limits[key] < float("inf"):
                raise ConfigError(f"budget {key} is {value.strip()}, must be 0 or more")
        requests, tokens = (
            int(limits[key]) if key in limits else None for key in ("requests", "tokens")
        )
        return cls(requests, tokens, limits.get("usd"), prices)

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """The price of these tokens in US dollars."""
        return (tokens_in * self.prices[0] + tokens_out * self.prices[1]) / 1e6

    def hold(self, estimate: tuple[int, int]) -> None:
        """Reserve a request's estimated tokens (in, out), and count the request.

        Raises:
            BudgetSpent: the request might exceed a limit; it is not counted then.
        """
        with self._lock:
            tokens_in = self.used_in + self._held[0] + estimate[0]
            tokens_out = self.used_out + self._held[1] + estimate[1]
            over = [
                name
                for name, limit, value in (
                    ("requests", self.requests, self.used_requests + 1),
                    ("tokens", self.tokens, tokens_in + tokens_out),
                    ("usd", self.usd, self.cost(tokens_in, tokens_out)),
                )
                if limit is not None and value > limit
            ]
            if over:
                raise BudgetSpent(
                    f"the budget of {' and '.join(over)} is spent: {self.summary()}",
                    remedy="run the same command again to go on; no question is asked twice",
                )
            self.used_requests += 1
            self._held = (self._held[0] + estimate[0], self._held[1] + estimate[1])

    def settle(self, estimate: tuple[int, int], used: tuple[int, int] = (0, 0)) -> None:
        """Replace a reserved estimate by the tokens that the request used."""
        with self._lock:
            self._held = (self._held[0] - estimate[0], self._held[1] - estimate[1])
            self.used_in += used[0]
            self.used_out += used[1]

    def summary(self) -> str:
        """One line: requests, tokens and dollars used."""
        spent = self.cost(self.used_in, self.used_out)
        return (
            f"{self.used_requests:,} requests, {self.used_in + self.used_out:,} tokens, "
            f"about ${spent:.2f}"
        )
