"""Numbers of bytes, as people write and read them.

Powers of 1000, as disks and the Hub count; `GiB` and its like are powers of 1024.
"""

from __future__ import annotations

import re
from typing import Final

#: What `parse` expects, for messages.
EXPECTED: Final = "a size such as 2GB or 500MiB"
#: Bytes that a size may be at most: what documents can hold.
_MAX: Final = 2**63 - 1
# ASCII: other alphabets have digits too, and letters that fold to these.
_SIZE: Final = re.compile(
    r"([0-9]{1,15})(?:\.([0-9]{1,9}))?\s*(?:([KMGT])(I?))?B?", re.ASCII | re.IGNORECASE
)


def parse(text: str) -> int | None:
    """Bytes: `2GB` is 2 x 10**9, `2GiB` is 2 x 2**30; rounded down; None if it is none."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    whole, part, prefix, binary = match.groups(default="")
    power = "_KMGT".index(prefix.upper()) if prefix else 0
    # In integers: 1.001 has no float, and would lose a byte.
    nbytes = int(whole + part) * (1024 if binary else 1000) ** power // 10 ** len(part)
    return nbytes if nbytes <= _MAX else None


def shown(nbytes: int) -> str:
    """`1.31 GB`, with three digits."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB", "EB"):
        if value < 999.5 or unit == "EB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
