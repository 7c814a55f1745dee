"""What a result was measured with: versions, commit, device, hardware."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .shipped import PACKAGE

PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "open_clip": "open_clip_torch",
    "numpy": "numpy",
    "easyeditor": "easyeditor",
}


def package_version(distribution: str) -> str | None:
    """The installed version, or ``None``."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def environment(device: str = "cpu", dtype: str = "float32", seed: int = 0) -> dict[str, Any]:
    """The content of ``env.json``."""
    import torch

    from .version import __version__

    return {
        "format": 1,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "easyedit_mm_plugins": __version__,
        **{name: package_version(dist) for name, dist in PACKAGES.items()},
        "git_commit": git_commit(),
        "device": device,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "cpu": cpu_name(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name(0) if device.startswith("cuda") else None,
    }


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """The commit of this package's checkout, with "-dirty" if its code was changed."""
    package = PACKAGE

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *args], capture_output=True, text=True, timeout=10
        )
        if done.returncode:
            raise OSError(done.stderr)
        return done.stdout.strip()

    try:
        # Fails where the package merely lies inside another project's repository.
        git("ls-files", "--error-unmatch", "__init__.py")
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def cpu_name() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    if sys.platform != "win32" and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware_line(env: dict[str, Any]) -> str:
    """One line on hardware and versions, to print below a table."""
    versions = [f"{name} {env[name]}" for name in ("torch", "transformers") if env.get(name)]
    place = env.get("gpu") or f"{env.get('cpu')}, {env.get('cores')} cores"
    return f"{place}; {env.get('dtype')}; Python {env.get('python')}, {', '.join(versions)}"


def weights_digest(*models: Any) -> str:
    """A hash of the weights of those ``models`` that are modules, or ``"none"`` without a module.

    It tells retrained weights from earlier ones. At most 256 values of each parameter are read, so
    that it is fast for large models too.
    """
    modules = [model for model in models if hasattr(model, "named_parameters")]
    whole = hashlib.sha256()
    for name, parameter in (pair for module in modules for pair in module.named_parameters()):
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 256)][:256]
        if not sample.is_meta:
            whole.update(sample.float().cpu().numpy().tobytes())
        whole.update(f"{name}{tuple(parameter.shape)}".encode())
    return whole.hexdigest()[:16] if modules else "none"


def model_facts(backbone: Any) -> dict[str, Any]:
    """Class and number of parameters of a backbone's model, to tell models of one name apart."""
    model: Any = getattr(backbone, "model", None)
    size = sum(p.numel() for p in model.parameters()) if hasattr(model, "parameters") else None
    return {"class": type(model).__name__, "parameters": size}
