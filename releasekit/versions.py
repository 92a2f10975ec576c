"""Release versions: one to four numbers with dots between them, compared as numbers.

They order the releases of one name, so that an older one is known for older, and nothing
else: `1.10` comes after `1.9`, and `1` is `1.0`. Whatever more a version string may say,
such as `-rc1`, orders differently from tool to tool, and has its place in the name.
"""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = "(?:0|[1-9][0-9]{0,8})"
_VERSION: Final = re.compile(rf"{_NUMBER}(?:\.{_NUMBER}){{0,3}}")

#: What a release is, of which its maintainer says nothing else.
FIRST: Final = "1"
#: What a version must be, for messages.
EXPECTED: Final = "one to four numbers with dots between them, such as 1.0"


def is_version(text: str) -> bool:
    """Whether `text` is a version."""
    return _VERSION.fullmatch(text) is not None


def order(version: str) -> tuple[int, ...]:
    """What versions are compared by: larger for later ones, equal for `1` and `1.0`."""
    numbers = [int(number) for number in version.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
