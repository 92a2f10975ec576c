"""Sizes and shares as people read them."""

from __future__ import annotations

from releasekit import sizes


def size(nbytes: float) -> str:
    """`1.31 GB`: bytes as disks and the Hub count them."""
    return sizes.shown(round(nbytes))


def percent(share: float) -> str:
    """`7.3 %`: three digits, and no 100 % or 0 % that is not all or nothing."""
    if 0.9995 <= share < 1:
        return "more than 99.9 %"
    if 0 < share < 1e-6:
        return "less than 0.0001 %"
    text = f"{100 * share:.3g}"
    if "e" in text:
        text = f"{float(text):f}".rstrip("0").rstrip(".")
    return f"{text} %"


def number(value: float) -> str:
    """A value, with three digits."""
    return f"{value:.3g}"


def listed(names: list[str]) -> str:
    """`F32, BF16 and I64`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
