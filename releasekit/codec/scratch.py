"""Buffers that each thread keeps: fresh pages cost more than filling them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_buffers = threading.local()


def scratch(name: str, size: int, dtype: DTypeLike) -> NDArray[Any]:
    """A buffer of this thread, kept between calls.

    Its content is unspecified, and it is valid until the same name is asked for again.
    """
    wanted = np.dtype(dtype)
    nbytes = size * wanted.itemsize
    buffer: NDArray[np.uint8] | None = getattr(_buffers, name, None)
    if buffer is None or buffer.size < nbytes:
        buffer = np.empty(nbytes, np.uint8)
        setattr(_buffers, name, buffer)
    return buffer[:nbytes].view(wanted)
