"""What the parts of some work share in a process: opened by the first, kept for the next.

Opening a large model means reading the headers of all its files, which takes longer than
many a part does. Other work, and the end of this, close it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from typing import TypeVar

Spec = TypeVar("Spec")
Opened = TypeVar("Opened")


class Keeper(threading.local):
    """What is open, for one kind of work at a time; for each thread by itself."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._key: object = None
        self._opened: object = None

    def get(
        self, spec: Spec, opener: Callable[[Spec], AbstractContextManager[Opened]]
    ) -> Opened:
        """What `opener` opens for `spec`: that of an earlier part, if it is the same.

        Args:
            spec: what the parts are told; hashable.
            opener: a function of a module, or a method of `spec`'s class.

        Raises what `opener` does.
        """
        key = opener, spec
        if self._key != key:
            self.close()
            self._opened = self._stack.enter_context(opener(spec))
            self._key = key
        opened: Opened = self._opened  # type: ignore[assignment]  # by the key
        return opened

    def close(self) -> None:
        """Close what is open."""
        self._key = self._opened = None
        self._stack.close()


@cache
def keeper() -> Keeper:
    """This process's."""
    return Keeper()
