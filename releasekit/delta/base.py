"""Is this the base that the delta was made with? Asked before any work starts.

First the headers: tensors that are missing or have another shape. Then the content of a
few small tensors spread over the model, which takes milliseconds and tells apart models
of one shape (Llama-2-7B from LLaMA-7B, a fine-tune from its base). What they cannot tell,
the digest of every rebuilt tensor does.
"""

from __future__ import annotations

from typing import Final

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.hashing import hash_tensor
from releasekit.errors import BaseMismatchError
from releasekit.manifest import Manifest
from releasekit.names import shown
from releasekit.tensors import TensorSpec

_SAMPLES: Final = 8
_SAMPLE_NBYTES: Final = 1 << 24
_LISTED: Final = 3


def check_base(manifest: Manifest, base: Checkpoint) -> None:
    """Compare a base with the one that a manifest records.

    Raises:
        BaseMismatchError: with what differs, and what to do.
    """
    needed = manifest.predictors
    missing = [name for name in needed if name not in base.specs]
    if missing:
        raise BaseMismatchError(
            f"{base.subject}: {len(missing)} of the {len(needed)} base tensors that the "
            f"delta needs are missing: {_listed(missing)}{_hint(manifest, base)}"
        )
    other = [name for name, spec in needed.items() if base.specs[name] != spec]
    if other:
        name = other[0]
        raise BaseMismatchError(
            f"{base.subject}: tensor {shown(name)}: expected {needed[name].describe()}, "
            f"found {base.specs[name].describe()} ({len(other)} of {len(needed)} tensors "
            f"differ in dtype or shape){_hint(manifest, base)}"
        )
    samples = _samples(needed)
    wrong = [n for n in samples if hash_tensor(base, n) != manifest.base[n].digest]
    if wrong:
        raise BaseMismatchError(
            f"{base.subject}: the tensors have the right shapes, but {len(wrong)} of the "
            f"{len(samples)} sampled have other values than the delta's base: "
            f"{_listed(wrong)}{_hint(manifest, base)}"
        )


def _samples(needed: dict[str, TensorSpec]) -> list[str]:
    """A few tensors that are quick to read, spread evenly over the model."""
    small = [n for n, spec in needed.items() if 0 < spec.nbytes <= _SAMPLE_NBYTES]
    if not small:
        return sorted(needed, key=lambda n: needed[n].nbytes)[:1]
    step = max(len(small) // _SAMPLES, 1)
    return small[::step][: _SAMPLES + 1]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown(name) for name in names[:_LISTED]) + more


def _hint(manifest: Manifest, base: Checkpoint) -> str:
    """The next step, for the mistakes that can be told from the headers."""
    specs = dict(base.specs)
    if specs and all(
        spec.dtype.label == "U8" and len(spec.shape) == 1 for spec in specs.values()
    ):
        return "; this looks like the delta itself: give the base model with --base"
    expected = f"; expected the base with identity {manifest.base_identity}"
    if len(manifest.target) != len(manifest.base) and specs == dict(manifest.target):
        return f"{expected}, this has the tensors of the fine-tuned model"
    return expected
