"""Is this the base that the delta was made with? Asked before any work starts.

First the headers, then a few tensors: together they take less than a second, and tell
apart models of one shape: Llama-2-7B from LLaMA-7B, a fine-tune from its base. What they
cannot tell, the digest of every rebuilt tensor does.

A base that is wrong is looked at more closely, so that the message can say what it is, and
what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from releasekit.checkpoint import Checkpoint, StoredCheckpoint, open_checkpoint
from releasekit.checkpoint.files import Coming
from releasekit.checkpoint.traits import (
    config_beside,
    is_blank,
    read_config,
    sizes_of_norms,
)
from releasekit.delta.diagnosis import (
    Finding,
    Headers,
    compare_headers,
    is_release,
    no_model,
    release_as_base,
    wanted,
)
from releasekit.delta.samples import (
    Samples,
    is_reordered,
    is_rotated,
    rounds_to_base,
    smallest,
    take,
)
from releasekit.errors import FormatError, UsageError
from releasekit.manifest import TARGET_FOLDER, Manifest
from releasekit.names import listed, shown
from releasekit.tensors import DType

#: Rows of a head where no config says them, likely ones first.
_HEADS: Final = (128, 64, 80, 96, 32, 256)
#: Mean size of weights below which a norm is that of a difference.
_DELTA_SIZE: Final = 0.01
#: What `releasekit convert` calls the dtypes that it writes.
_CONVERTED: Final = {DType.F16: "float16", DType.BF16: "bfloat16", DType.F32: "float32"}


def open_base(
    path: str | Path, manifest: Manifest, coming: Coming | None = None
) -> StoredCheckpoint:
    """Open the base of a release.

    Args:
        path: where it is.
        manifest: the release's.
        coming: files of it that are on their way; None if there are none.

    Raises:
        BaseMismatchError: if it is a release itself, that is no checkpoint.
        FormatError, UsageError: as `open_checkpoint` does.
    """
    try:
        return open_checkpoint(path, coming)
    except (FormatError, UsageError):
        if is_release(Path(path)):
            raise release_as_base(manifest, str(path)).error() from None
        raise


def check_base(
    manifest: Manifest, base: Checkpoint, release: Path | None = None
) -> tuple[str, ...]:
    """Compare a base with the one that a manifest records.

    Args:
        manifest: the release's.
        base: the base.
        release: the release's folder; its target's config may say how large heads are.

    Returns:
        What is worth a note, though it is no fault.

    Raises:
        BaseMismatchError: with what differs, and what to do.
    """
    findings = examine(manifest, base, release)
    for finding in findings:
        if finding.fatal:
            raise finding.error()
    return tuple(finding.message for finding in findings)


def examine(
    manifest: Manifest, base: Checkpoint, release: Path | None = None
) -> list[Finding]:
    """All that is to be said about a base, the most telling first.

    A cause that explains every difference stands for all of them. The arguments are those
    of `check_base`.
    """
    headers = compare_headers(manifest, base)
    fit = not (headers.faults or headers.dtypes)
    samples = take(manifest, base)
    if fit and len(samples.right) == samples.count:
        return headers.notes
    if is_release(Path(base.subject)):
        return [release_as_base(manifest, base.subject)]
    cause = None if fit else no_model(manifest, base)
    if cause is not None:
        return [cause]
    cause = _model(manifest, base, samples)
    if cause is None and fit and samples.right and not samples.tuned:
        cause = _other_order(manifest, base, samples, release)
    if cause is not None:
        return [cause, *headers.notes]
    return [*_faults(manifest, base, headers, samples), *headers.notes]


def _model(manifest: Manifest, base: Checkpoint, samples: Samples) -> Finding | None:
    """What a wrong base is, if it is the target, or to be added to a model."""
    if samples.tuned and not samples.wrong:
        return Finding(
            kind="fine-tune",
            message=f"{base.subject}: is the fine-tuned model {manifest.name} itself: of "
            f"the tensors sampled, {listed(samples.tuned)} have the values that the delta "
            "is there to rebuild: use it as it is, or give its base with --base; "
            f"{wanted(manifest)}",
        )
    if not samples.right and is_blank(base):
        return Finding(
            kind="blank",
            message=f"{base.subject}: holds zeros wherever it was looked at: files that "
            "were reserved, and not downloaded, look so; download it again; "
            f"{wanted(manifest)}",
        )
    norms = {} if samples.right else sizes_of_norms(base)
    if len(norms) > 1 and max(norms.values()) < _DELTA_SIZE:
        return Finding(
            kind="additive-delta",
            message=f"{base.subject}: the weights of its norms are around 0, such as "
            f"{shown(next(iter(norms)))}, those of a model around 1: this is a delta, to "
            f"be added to a model: give the base model with --base; {wanted(manifest)}",
        )
    return None


def _faults(
    manifest: Manifest, base: Checkpoint, headers: Headers, samples: Samples
) -> Iterator[Finding]:
    """What is wrong with a base, as far as there is no one cause; what says most first."""
    wrong = [*samples.wrong, *samples.tuned]
    counted = f"{len(wrong)} of the {samples.count}"
    # Models may have tensors in common, such as norms that no training has moved.
    other = len(wrong) > len(samples.right)
    if other:
        fit = "some tensors" if headers.faults or headers.dtypes else "the tensors"
        yield Finding(
            kind="other-model",
            message=f"{base.subject}: {fit} have the right shapes, but {counted} sampled "
            f"have other values than the delta's base: {listed(wrong)}: this is another "
            "model of the architecture, as Llama-2-7B is to LLaMA-7B, or another "
            f"fine-tune; {wanted(manifest)}",
        )
    if headers.dtypes:
        yield _other_dtype(manifest, base, headers.dtypes)
    yield from headers.faults
    if wrong and not other:
        yield Finding(
            kind="edited",
            message=f"{base.subject}: {counted} tensors sampled have other values than the "
            f"delta's base, and the others are right: {listed(wrong, len(wrong))}: it was "
            f"edited, fine-tuned or damaged; {wanted(manifest)}",
        )


def _other_dtype(
    manifest: Manifest, base: Checkpoint, dtypes: Mapping[DType, DType]
) -> Finding:
    expected = ", ".join(dtype.label for dtype in dtypes)
    found = ", ".join(dict.fromkeys(dtype.label for dtype in dtypes.values()))
    only = next(iter(dtypes)) if len(dtypes) == 1 else None
    if only in _CONVERTED and rounds_to_base(manifest, base, only):
        why = (
            f"rounded to {expected} it is the delta's base, as far as was sampled: write "
            f"that with `releasekit convert {base.subject} NEW_FOLDER --dtype "
            f"{_CONVERTED[only]}`, and give NEW_FOLDER with --base"
        )
    elif all(_keeps(found, expected) for expected, found in dtypes.items()):
        why = f"rounded to {expected} the values are others, so this is another model"
    else:
        why = (
            "some converters write another dtype than they read, and round the values to "
            f"it, which cannot be undone: download the base in {expected}"
        )
    return Finding(
        kind="dtype",
        message=f"{base.subject}: expected {expected}, found {found} throughout: {why}; "
        f"{wanted(manifest)}",
    )


def _keeps(dtype: DType, other: DType) -> bool:
    """Whether `dtype` has all values of `other`."""
    mine, its = dtype.word, other.word
    return (
        mine.exponent_bits >= its.exponent_bits and mine.mantissa_bits >= its.mantissa_bits
    )


def _other_order(
    manifest: Manifest, base: Checkpoint, samples: Samples, release: Path | None
) -> Finding | None:
    """Whether nothing is wrong but the order of rotated rows."""
    if not all(map(is_rotated, samples.wrong)):
        return None
    (name,) = smallest(samples.wrong, base.specs)
    digest = manifest.base[name].digest
    heads = list(_head_rows(base.specs[name].shape[0], base, release))
    if is_reordered(base, name, digest, heads, meta=True):
        why = (
            "Meta's order, not that of transformers: it was converted without permuting "
            "them; give the folder with Meta's own files and params.json with --base, or "
            "what `releasekit convert` makes of it"
        )
    elif is_reordered(base, name, digest, heads, meta=False):
        why = (
            "the order of transformers, those of the delta's base in Meta's: get the base "
            "from where the publisher had it"
        )
    else:
        return None
    return Finding(
        kind="row-order",
        message=f"{base.subject}: the rows of q_proj and k_proj are in {why} (by "
        f"{shown(name)}; all else that was sampled is right); {wanted(manifest)}",
    )


def _head_rows(rows: int, base: Checkpoint, release: Path | None) -> Iterator[int]:
    """How many rows a head may have: what the configs say, then what is usual."""
    configs = [config_beside(base)]
    configs += [read_config(release / TARGET_FOLDER)] if release else []
    for config in configs:
        fields = {key: n for key, n in config.items() if isinstance(n, int) and n > 0}
        heads = fields.get("num_attention_heads", 1)
        yield fields.get("head_dim", 0)
        yield fields.get("hidden_size", 0) // heads
        yield rows // heads
        yield rows // fields.get("num_key_value_heads", heads)
    yield from _HEADS
