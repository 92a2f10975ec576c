"""Whose delta is it? A release of ours says so; others are told by their files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Final

from releasekit.errors import IntegrityError, UsageError
from releasekit.foreign.payloads import is_xor
from releasekit.foreign.recipes import AUTO, XOR
from releasekit.manifest import LOADER_STOP, MANIFEST

_MODEL_TYPE: Final = b'"releasekit_delta"'
_MAX_CONFIG: Final = 1 << 20


class Origin(Enum):
    """Who made a delta."""

    RELEASE = "release"
    ADDITIVE = "additive"
    XOR = "xor"


def recognise(delta: Path, recipe: str = AUTO) -> Origin:
    """Tell a release of ours from other tools' deltas.

    Args:
        delta: a folder or a file.
        recipe: what the user calls it; `auto` if nothing.

    Raises:
        UsageError: if it is a release, and a recipe was named.
        IntegrityError: if it is a release that has lost its manifest.
    """
    if (delta / MANIFEST).is_file():
        if recipe != AUTO:
            raise UsageError(
                f"{delta}: is a release of releasekit, which says itself how it is "
                "applied: leave out --recipe"
            )
        return Origin.RELEASE
    if _stops_loaders(delta / LOADER_STOP):
        raise IntegrityError(
            f"{delta}: is a release of releasekit without its {MANIFEST}: the download is "
            "incomplete; download it again"
        )
    if recipe == XOR or (recipe == AUTO and is_xor(delta)):
        return Origin.XOR
    return Origin.ADDITIVE


def _stops_loaders(config: Path) -> bool:
    """Whether a config is the one that a release has in a model's place."""
    if not config.is_file() or config.stat().st_size > _MAX_CONFIG:
        return False
    return _MODEL_TYPE in config.read_bytes()
