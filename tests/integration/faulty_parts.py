"""Parts of a rebuild to which something happens; what, says a file that all nodes read."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from releasekit.delta import spread
from releasekit.parts.tasks import Advance, Task

#: Names a folder: `faults.json` in it says what happens, and marks say to whom it has.
VARIABLE = "FAULTS_OF_PARTS"


def rebuild_part(
    spec: spread.Rebuilding, task: Task, advance: Advance
) -> Mapping[str, object]:
    """Make a part, unless something happens first."""
    import ray

    folder = Path(os.environ[VARIABLE])
    faults = json.loads((folder / "faults.json").read_text())
    node = ray.get_runtime_context().get_node_id()
    begun = folder / f"begun {task.name.replace('/', ' ')} {time.time_ns()}"
    begun.write_text(node)
    if (
        faults.get("kill")
        and len(list(folder.glob(f"{begun.name.rpartition(' ')[0]} *"))) == 1
    ):
        os.kill(os.getpid(), signal.SIGKILL)
    if node in faults.get("full", []):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/local/scratch")
    if node in faults.get("other_base", []):
        spec = replace(spec, base=Path(faults["base"]))
    time.sleep(faults.get("seconds", 0))
    return _rebuild_part(spec, task, advance)


_rebuild_part = spread.rebuild_part
