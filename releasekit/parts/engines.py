"""What `--engine` means: this process, or a cluster that has parts done."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from releasekit.errors import UsageError
from releasekit.parts.cluster import Cluster
from releasekit.parts.tasks import Here, Pool
from releasekit.storage.address import is_stored

LOCAL: Final = "local"
_RAY: Final = "ray"


def pool_of(engine: str, out: Path | None = None) -> AbstractContextManager[Pool | None]:
    """Who does the parts of some work.

    Args:
        engine: `local`; `ray`, for the cluster that RAY_ADDRESS names, or else for
            processes of this machine; or `ray:ADDRESS`, as `ray.init` takes it.
        out: what is made; in object storage it is always made in parts, since no disk
            need hold all of it.

    Returns:
        A context manager, of None if this process does it all as a whole.

    Raises:
        UsageError: if it is none of these.
    """
    if engine == LOCAL:
        return nullcontext(Here() if out is not None and is_stored(out) else None)
    kind, colon, address = engine.partition(":")
    if kind != _RAY or bool(colon) != bool(address):
        raise UsageError(
            f"--engine {engine}: expected local, ray, or ray:ADDRESS, such as ray:auto or "
            "ray:10.0.0.1:6379"
        )
    return Cluster(address or None)
