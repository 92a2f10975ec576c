"""What `--engine` means: this process, or a cluster that has parts done."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from releasekit.errors import UsageError
from releasekit.parts.cluster import Cluster
from releasekit.parts.tasks import Pool

LOCAL: Final = "local"
_RAY: Final = "ray"


def pool_of(engine: str) -> AbstractContextManager[Pool] | None:
    """Who does the parts of some work.

    Args:
        engine: `local`; `ray`, for the cluster that RAY_ADDRESS names, or else for
            processes of this machine; or `ray:ADDRESS`, as `ray.init` takes it.

    Returns:
        None if this process does it all.

    Raises:
        UsageError: if it is none of these.
    """
    if engine == LOCAL:
        return None
    kind, colon, address = engine.partition(":")
    if kind != _RAY or bool(colon) != bool(address):
        raise UsageError(
            f"--engine {engine}: expected local, ray, or ray:ADDRESS, such as ray:auto or "
            "ray:10.0.0.1:6379"
        )
    return Cluster(address or None)
