"""All kinds of input, those that are quick to try first."""

from __future__ import annotations

from . import command_lines, editors, images, records, requests, runs, settings
from .attack import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        records.KIND,
        images.KIND,
        settings.KIND,
        editors.KIND,
        editors.MEMORIES,
        requests.KIND,
        runs.KIND,
        command_lines.KIND,
    )
}
