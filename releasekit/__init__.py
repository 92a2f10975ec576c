"""Release models as deltas, and rebuild them byte for byte.

    make_delta     release a fine-tune as its difference from a base
    apply_delta    rebuild the fine-tune's files from base and delta
    plan_apply     what apply_delta would read, write and need
    open_delta     rebuild into memory, tensor by tensor, on any torch device
    load_into      fill a model that is in memory, in place
    verify         hold a release, or a rebuilt model, against its digests
    inspect        what a release or a checkpoint holds, from headers alone

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from releasekit.codec import Ulp
    from releasekit.delta.apply import ApplyPlan, ApplyResult, apply_delta, plan_apply
    from releasekit.delta.load import load_into
    from releasekit.delta.make import MakeResult, make_delta
    from releasekit.delta.open import OpenDelta, open_delta
    from releasekit.errors import (
        BaseMismatchError,
        FormatError,
        IntegrityError,
        ReleaseKitError,
        UsageError,
    )
    from releasekit.inspection import Inspection, inspect
    from releasekit.progress import Progress
    from releasekit.verification import Verification, verify

_HOMES = {
    "ApplyPlan": "delta.apply",
    "ApplyResult": "delta.apply",
    "BaseMismatchError": "errors",
    "FormatError": "errors",
    "Inspection": "inspection",
    "IntegrityError": "errors",
    "MakeResult": "delta.make",
    "OpenDelta": "delta.open",
    "Progress": "progress",
    "ReleaseKitError": "errors",
    "Ulp": "codec",
    "UsageError": "errors",
    "Verification": "verification",
    "apply_delta": "delta.apply",
    "inspect": "inspection",
    "load_into": "delta.load",
    "make_delta": "delta.make",
    "open_delta": "delta.open",
    "plan_apply": "delta.apply",
    "verify": "verification",
}

__all__ = [
    "ApplyPlan",
    "ApplyResult",
    "BaseMismatchError",
    "FormatError",
    "Inspection",
    "IntegrityError",
    "MakeResult",
    "OpenDelta",
    "Progress",
    "ReleaseKitError",
    "Ulp",
    "UsageError",
    "Verification",
    "apply_delta",
    "inspect",
    "load_into",
    "make_delta",
    "open_delta",
    "plan_apply",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
