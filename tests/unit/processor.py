"""The modes of a processor's float arithmetic that a library may leave behind."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
import torch

_ROUNDING: Final = {
    "x86_64": {"down": 0x400, "up": 0x800, "towards zero": 0xC00},
    "aarch64": {"down": 0x800000, "up": 0x400000, "towards zero": 0xC00000},
}
MODES: Final = ("flush to zero", "down", "up", "towards zero")


@contextmanager
def mode(kind: str) -> Iterator[None]:
    """Put this thread's arithmetic into a mode; skip the test where that cannot be done."""
    if kind == "flush to zero":
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor does not flush subnormals")
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
        return
    kinds = _ROUNDING.get(platform.machine())
    if platform.system() != "Linux" or kinds is None:
        pytest.skip("how this system names rounding modes is not known here")
    libm = ctypes.CDLL("libm.so.6")
    assert libm.fesetround(kinds[kind]) == 0
    try:
        yield
    finally:
        assert libm.fesetround(0) == 0
