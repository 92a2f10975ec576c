"""Whose parts are whose, where nobody hands them out: as in a batch system's array jobs.

Each of N processes is told its number alone, and all come to the same answer: parts go, the
largest first, to whoever has least (Graham's longest-processing-time rule, within a third
of the best: https://doi.org/10.1137/0117039).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Final

from releasekit.errors import UsageError
from releasekit.parts.tasks import Task

_TEXT: Final = re.compile(r"([0-9]{1,6})/([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class Share:
    """One of several equal shares of some work.

    Attributes:
        number: which, from 1 on.
        count: of how many.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read `2/8`.

        Raises:
            UsageError: if it is no such text.
        """
        found = _TEXT.fullmatch(text)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count or text != f"{number}/{count}":
            raise UsageError(
                f"--shard {text}: expected i/n, the i-th of n shares, such as 1/8 to 8/8"
            )
        return cls(number, count)

    def of(self, tasks: Sequence[Task]) -> list[Task]:
        """This share of the tasks, in their order."""
        loads = [(0, number) for number in range(1, self.count + 1)]
        heapify(loads)
        mine = set()
        for task in sorted(tasks, key=lambda task: (-task.nbytes, task.name)):
            load, number = loads[0]
            heapreplace(loads, (load + task.nbytes, number))
            if number == self.number:
                mine.add(task.name)
        return [task for task in tasks if task.name in mine]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
