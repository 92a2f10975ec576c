"""Places in object storage: a scheme, and a path there, as in `s3://bucket/folder`.

They are handed about as a `Path`, as all other places are. That keeps one of the two
slashes, which does no harm: they are put back wherever the place is used or shown. What
lies in this file system under such a name comes first, as it does for models on the Hub.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

#: The scheme, longer than the letter of a drive; then the bucket, or what stands for it.
_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+]+):/+([^/].*)", re.DOTALL)
#: Schemes of what is in a file system after all.
_LOCAL: Final = frozenset(("file", "local"))


def is_stored(place: str | Path) -> bool:
    """Whether a place is in object storage."""
    found = _ADDRESS.fullmatch(str(place))
    return found is not None and found[1] not in _LOCAL and not os.path.lexists(str(place))


def split(place: str | Path) -> tuple[str, str]:
    """The scheme and the path of a place that `is_stored`."""
    found = _ADDRESS.fullmatch(str(place))
    assert found is not None, "asked first whether it is stored"
    return found[1], found[2].rstrip("/")


def text(place: str | Path) -> str:
    """A place as people write it: `s3://bucket/folder`, or the path."""
    if not is_stored(place):
        return str(place)
    scheme, path = split(place)
    return f"{scheme}://{path}"


def absolute(place: Path) -> Path:
    """A place that means the same in every folder."""
    return place if is_stored(place) else place.absolute()
