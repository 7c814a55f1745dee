"""Keys and passwords are kept out of everything that is printed, logged or written.

Every error of the package passes its message through :func:`redact`; what else shows text from
outside, such as an endpoint's reply or a user's settings, does the same.
"""

from __future__ import annotations

import os
import re
from typing import Any

MASK = "***"
_SHORTEST = 8  # a shorter secret would hide ordinary words
_KNOWN: set[str] = set()
_VARIABLES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD)$")
_FIELDS = re.compile(
    r"(?:^|_)(?:authorization|api_?key|access_key|secret|secret_key|password|passwd"
    r"|(?:access|auth|hf|hub|bearer)_token)$|^token$"
)
_PATTERNS = (
    # https://user:password@host
    (re.compile(r"(?<=://)[^/\s'\"]*@"), f"{MASK}@"),
    (re.compile(r"(?i)\b(bearer\s+)[^\s'\",;}]{8,}"), rf"\1{MASK}"),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?basic\s+)[^\s'\",;}]+"), rf"\1{MASK}"),
    (re.compile(r"\b(sk|pk|hf|gh[pousr]|github_pat)[-_][A-Za-z0-9_-]{16,}"), MASK),
    (re.compile(r"(?i)(\b(?:api[-_]?key|password|access[-_]?token)=|[?&]token=)[^\s&'\"]+"),
     rf"\1{MASK}"),
)  # fmt: skip


def hide(secret: str | None) -> None:
    """Replace ``secret`` by ``***`` wherever :func:`redact` meets it from now on.

    Secrets of fewer than eight characters are ignored: they would hide ordinary words.
    """
    if secret and len(secret) >= _SHORTEST:
        _KNOWN.add(secret)


def redact(text: str) -> str:
    """``text`` without keys and passwords.

    Removed are secrets given to :func:`hide`, the values of environment variables such as
    ``OPENAI_API_KEY`` or ``HF_TOKEN``, the user and password of a URL, and what looks like an
    access key or an authorization header.
    """
    for secret in sorted(_KNOWN | _from_environment(), key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_values(value: Any) -> Any:
    """Settings without keys and passwords: the texts of nested dicts and lists, redacted.

    The text under a name such as ``api_key``, ``password`` or ``Authorization`` is removed whole.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {
            key: MASK if isinstance(item, str) and _is_secret(key) else redact_values(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(map(redact_values, value)) if type(value) in (list, tuple) else value
    return value


def _is_secret(name: object) -> bool:
    return bool(_FIELDS.search(str(name).lower().replace("-", "_")))


def _from_environment() -> set[str]:
    return {
        value
        for name, value in os.environ.items()
        if _VARIABLES.search(name) and len(value) >= _SHORTEST and not value.startswith(("/", "~"))
    }
