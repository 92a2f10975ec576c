"""Parts of a release in the making whose worker is killed when each is begun first."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from releasekit.delta.making import assembling as shard_parts
from releasekit.delta.making import parts as make_parts
from releasekit.delta.making.told import Making
from releasekit.parts.tasks import Advance, Task

#: Names a folder, in which a mark says that a part was begun.
VARIABLE = "MARKS_OF_PARTS"


def input_part(spec: Making, task: Task, advance: Advance) -> Mapping[str, object]:
    """Do a part that reads the inputs, if it is not the first time."""
    _die_once(task)
    return make_parts.input_part(spec, task, advance)


def output_part(spec: Making, task: Task, advance: Advance) -> Mapping[str, object]:
    """Do another part, if it is not the first time."""
    _die_once(task)
    return shard_parts.output_part(spec, task, advance)


def _die_once(task: Task) -> None:
    mark = Path(os.environ[VARIABLE]) / task.name.replace("/", " ")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
