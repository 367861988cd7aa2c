"""What a result tells beside its figures: machine, packages, state of the code."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "napari-ptsam", "torch", "segment-anything", "numpy", "scipy", "scikit-image", "scikit-learn",
    "nnunetv2",
)  # fmt: skip


def circumstances() -> dict[str, Any]:
    """Machine, packages, commit and date."""
    here = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpu": _gpu(),
            "system": platform.platform(terse=True),
        },
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        # Of the checkout that this file belongs to, and not of whatever it is installed within.
        "commit": _git("rev-parse", "--short", "HEAD") if here else None,
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no"))
        if here
        else None,
        "date": datetime.now(UTC).date().isoformat(),
    }


def write_json(path: Path, content: dict[str, Any], indent: int | None = 2) -> None:
    """Write a result at once, so that a killed run leaves the last complete one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    unfinished.write_text(f"{text}\n", encoding="utf-8")
    unfinished.replace(path)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """The output of a git command beside this file, None outside a checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
