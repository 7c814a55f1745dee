"""Whether the Hugging Face hub can be reached, asked once, so that nothing retries for minutes."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

from ..core.errors import BackboneError

PATIENCE = 6.0  # seconds


def from_where(name: str | Path) -> dict[str, Any]:
    """Keywords of ``from_pretrained`` for a folder or hub id: the cache alone if there is no hub.

    Raises:
        BackboneError: there is no hub, and nothing of it in the cache.
    """
    if Path(name).exists() or hub_answers():
        return {}
    if not _cached(str(name)):
        raise unreachable(name)
    return {"local_files_only": True}


def unreachable(name: str | Path) -> BackboneError:
    """The error for a model that is neither to be fetched nor whole in the cache."""
    return BackboneError(
        f"{name} is no folder here, the hub cannot be reached, and the local cache of hub models "
        "does not hold it whole",
        remedy="give a model folder, or try again where the hub can be reached (and unset "
        "HF_HUB_OFFLINE)",
    )


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # no hub id at all
        return False


@cache
def hub_answers() -> bool:
    """Whether the hub answers within :data:`PATIENCE`; it is not asked if HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []
    # A name server that does not answer ignores timeouts; a thread can be left behind.
    ask = threading.Thread(target=lambda: answers.append(_asked(constants.ENDPOINT)), daemon=True)
    ask.start()
    ask.join(PATIENCE)
    return answers == [True]


def _asked(url: str) -> bool:
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True  # it answers, though not with this page
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # it answers with a certificate of its own
    except (OSError, ValueError):
        return False
