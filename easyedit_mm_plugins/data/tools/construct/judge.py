"""The interface of a judge, and the judge behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import base64
import io
import os
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from PIL import Image, ImageOps

from ....core.errors import ConfigError, DataError, EasyEditMMError
from ....core.files import file_digest
from ....core.optional import need
from ....core.secrets import hide, redact, redact_values
from ...images import open_image
from .budget import Budget

_PLAIN = {"JPEG": "image/jpeg", "PNG": "image/png"}
_REFUSALS = ("content_filter", "content_policy_violation")


class JudgeError(EasyEditMMError):
    """The judge cannot be reached or refuses to work. Answers received so far are kept."""


class Judge(ABC):
    """A model that replies to a prompt, perhaps about an image."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All settings besides the prompt that decide a reply; part of the cache's keys."""

    @abstractmethod
    def reply(
        self, prompt: str, image: Path | None, history: Sequence[str], max_tokens: int
    ) -> str:
        """The reply.

        Args:
            prompt: the user's first message; ``image`` goes with it.
            history: what followed: the judge's reply, the user's next message, and so on.

        Raises:
            BudgetSpent: the request might exceed the budget.
            DataError: the image cannot be used.
            JudgeError: no reply after all retries, or retrying is of no use.
        """

    def estimate(self, prompt: str, image: bool) -> tuple[int, int]:
        """About how many tokens (in, out) one request takes."""
        return len(prompt) // 3 + 8, 8


def image_url(path: Path, max_side: int) -> str:
    """A picture as a data URL, its longer side at most ``max_side``.

    JPEG and PNG files that are small enough, upright, and grey or RGB are sent as they are.

    Raises:
        DataError: the file is missing or cannot be decoded.
    """
    picture = open_image(path)  # raises the errors that name the file
    with Image.open(path) as opened:
        kind, mode = opened.format, opened.mode
        turned = opened.getexif().get(0x0112, 1) not in (0, 1)
    if turned:
        picture = ImageOps.exif_transpose(picture)
    small = max(picture.size) <= max_side
    if kind in _PLAIN and mode in ("RGB", "L") and small and not turned:
        data, mime = path.read_bytes(), _PLAIN[kind]
    else:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=90)
        data, mime = buffer.getvalue(), "image/jpeg"
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def image_digest(path: Path) -> str:
    """SHA-256 of an image file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return file_digest(path)
    except (OSError, ValueError) as error:
        raise DataError(
            "image not found" if isinstance(error, FileNotFoundError) else str(error),
            file=path,
            remedy="check the image root, or fetch the images",
        ) from error


class ChatJudge(Judge):
    """A model behind an OpenAI-compatible chat-completions endpoint.

    Args:
        model: its name at the endpoint (the paper's is gpt-4o-mini).
        base_url: by default OpenAI's, or the environment's ``OPENAI_BASE_URL``. A user and password
            in it are sent as a Basic authorization header; the attribute ``base_url`` lacks them.
        key_env: environment variable with the key; endpoints other than OpenAI's may need none.
        budget: limits on requests, tokens and dollars; none by default.
        max_side: images are scaled down to this many pixels.
        timeout: seconds for one request.
        retries: further tries after rate limits, server errors, broken replies and lost
            connections, each after twice the wait of the one before, starting with ``backoff``
            seconds; an endpoint's Retry-After is honoured.
        params: further request parameters; temperature is 0 unless it is among them.

    Raises:
        ConfigError: the package openai or the key is missing.
    """

    def __init__(
        self,
        model: str = "gpt-4o-mini",
        *,
        base_url: str | None = None,
        key_env: str = "OPENAI_API_KEY",
        budget: Budget | None = None,
        max_side: int = 512,
        timeout: float = 60.0,
        retries: int = 6,
        backoff: float = 1.0,
        params: dict[str, Any] | None = None,
    ) -> None:
        self._openai = need("openai", "a judge behind a chat endpoint")
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        key = os.environ.get(key_env)
        if not key and base_url is None:
            raise ConfigError(
                f"no key in the environment variable {key_env}",
                remedy=f"export {key_env}=..., or give base_url for another endpoint",
            )
        hide(key)
        base_url, headers = _without_password(base_url)
        self.model, self.base_url = model, base_url
        self.budget = budget or Budget()
        self.max_side, self.retries, self.backoff = max_side, retries, backoff
        self.params = {"temperature": 0, **(params or {})}
        self._limit_name = "max_tokens"
        self._pause_until = 0.0
        self._lock = threading.Lock()
        self.client = self._openai.OpenAI(
            api_key=key or "none",
            base_url=base_url,
            default_headers=headers,
            max_retries=0,
            timeout=timeout,
        )

    def identity(self) -> dict[str, Any]:
        params = redact_values(self.params)
        return {"judge": "chat", "model": self.model, "side": self.max_side, **params}

    def estimate(self, prompt: str, image: bool) -> tuple[int, int]:
        # 85 tokens and 170 for each tile of 512 pixels: OpenAI's rule for images.
        tiles = (-(-self.max_side // 512)) ** 2
        return len(prompt) // 3 + 8 + (85 + 170 * tiles if image else 0), 8

    def reply(
        self, prompt: str, image: Path | None, history: Sequence[str], max_tokens: int
    ) -> str:
        content: Any = prompt
        if image is not None:
            picture = {"url": image_url(image, self.max_side)}
            content = [
                {"type": "text", "text": prompt},
                {"type": "image_url", "image_url": picture},
            ]
        messages = [{"role": "user", "content": content}]
        for turn, said in enumerate(history):
            messages.append({"role": ("assistant", "user")[turn % 2], "content": said})
        guess = self.estimate(prompt + "".join(history), image is not None)
        trouble = ""
        for attempt in range(self.retries + 1):
            self._wait_for_pause()
            self.budget.hold(guess)
            used = (0, 0)
            text: str | None
            wait: float | None
            try:
                answer = self.client.chat.completions.create(
                    model=self.model,
                    messages=messages,
                    **{self._limit_name: max_tokens},
                    **self.params,
                )
                text, used = self._read(answer, guess)
                if text is not None:
                    return text
                trouble, wait = "a reply without a message", None
            except self._openai.APIStatusError as error:
                outcome = self._status(error)
                if isinstance(outcome, str):
                    return outcome
                trouble, wait = f"status {error.status_code}", outcome
            except (self._openai.APIConnectionError, self._openai.APIError) as error:
                trouble, wait = str(error) or type(error).__name__, None
            except (ValueError, TypeError, AttributeError) as error:
                trouble, wait = f"a reply that is no chat completion ({error})", None
            finally:
                self.budget.settle(guess, used)
            if attempt < self.retries:
                self._back_off(attempt, wait)
        raise JudgeError(
            f"{self.base_url or 'the endpoint'} gave no usable reply in {self.retries + 1} tries; "
            f"the last: {trouble}",
            remedy="run the same command again later; no question is asked twice",
        )

    def _read(self, answer: Any, guess: tuple[int, int]) -> tuple[str | None, tuple[int, int]]:
        usage = getattr(answer, "usage", None)
        sent, made = (getattr(usage, f"{kind}_tokens", None) for kind in ("prompt", "completion"))
        used = (sent, made) if isinstance(sent, int) and isinstance(made, int) else guess
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices:
            return None, used
        message = getattr(choices[0], "message", None)
        if message is None:
            return None, used
        content = message.content
        # An endpoint may repeat what it was sent; replies are kept in a file.
        return (redact(content) if isinstance(content, str) else ""), used

    def _status(self, error: Any) -> float | str | None:
        """Seconds to wait (None: the usual backoff), or the reply to use.

        Raises:
            JudgeError: retrying is of no use.
        """
        code, status = str(getattr(error, "code", "") or ""), error.status_code
        if code in _REFUSALS:
            return ""  # the endpoint rejects this picture; counts as no verdict
        if status == 400 and "max_completion_tokens" in str(error):
            self._limit_name = "max_completion_tokens"
            return 0.0
        if code == "insufficient_quota":
            raise JudgeError(
                f"{self.base_url or 'the endpoint'}: the account's quota is used up",
                remedy="add credit and run the same command again; no question is asked twice",
            ) from error
        if status in (408, 409, 429) or status >= 500:
            header = error.response.headers.get("retry-after", "")
            try:
                return min(float(header), 120.0)
            except ValueError:
                return None
        remedy = {
            401: "check the key in the environment",
            403: "check what the key may use",
            404: "check the model's name and the base URL (it often ends in /v1)",
        }.get(status, "check the model, the parameters and the base URL")
        raise JudgeError(
            f"{self.base_url or 'the endpoint'} refused the request: {redact(str(error))[:300]}",
            remedy=remedy,
        ) from error

    def _back_off(self, attempt: int, wait: float | None) -> None:
        # A random factor, so that threads do not retry in step.
        usual = self.backoff * 2**attempt * random.uniform(0.75, 1.25)
        pause = min(60.0, usual) if wait is None else wait
        with self._lock:  # all threads wait: the endpoint is overloaded for all of them
            self._pause_until = max(self._pause_until, time.monotonic() + pause)

    def _wait_for_pause(self) -> None:
        while (left := self._pause_until - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))


def _without_password(url: str | None) -> tuple[str | None, dict[str, str]]:
    """``url`` without user and password, and the headers that send them instead."""
    parts = urlsplit(url or "")
    if "@" not in parts.netloc:
        return url, {}
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = (unquote(part) for part in login.partition(":"))
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    hide(password)
    hide(token)
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {token}"}
