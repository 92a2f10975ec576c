"""What can be wrong with a base, told from headers alone; each fault in its own words.

A fault has a cause that a user can act on: a token that was added, a conversion that
rounded, a quantised copy, the delta in the base's place. So the tensors that differ are
looked at together: what they have in common is the cause. Nothing here reads a tensor's
data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.traits import quantisation
from releasekit.codec.formats import castable
from releasekit.errors import (
    BaseMismatchError,
    FormatError,
    HubError,
    IntegrityError,
    ReleaseKitError,
    SignatureError,
    UsageError,
)
from releasekit.manifest import MANIFEST, Manifest
from releasekit.names import listed, shown
from releasekit.operations import is_buffer
from releasekit.tensors import DType, TensorSpec

#: More rows than this were not added for a few special tokens, or to fill up a block.
_FEW_ROWS: Final = 1024

#: The errors that findings are, where they are not about the base's tensors.
_ERRORS: Final[dict[str, type[ReleaseKitError]]] = {
    "disk": ReleaseKitError,
    "memory": UsageError,
} | {
    kind.__name__: kind
    for kind in (
        *(ReleaseKitError, UsageError, FormatError),
        *(IntegrityError, SignatureError, HubError),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to know before a rebuild.

    Attributes:
        kind: what it is about, for programs: "vocabulary", "dtype", …; for a path that
            cannot be opened, the error's class, such as "FormatError".
        message: subject, what was expected and found, and the next step.
        fatal: whether a rebuild is refused because of it; otherwise it is a note.
    """

    kind: str
    message: str
    fatal: bool = True

    def error(self) -> ReleaseKitError:
        """The error that a rebuild ends with because of it."""
        return _ERRORS.get(self.kind, BaseMismatchError)(self.message)


def wanted(manifest: Manifest) -> str:
    """How messages about another base end."""
    expected = f"expected the base with identity {manifest.base_identity}"
    before = manifest.predecessor
    if before is None:
        return f"{expected}; get that base, in the revision that the release names"
    where = f" ({before.hub})" if before.hub else ""
    return (
        f"{expected}, which the release {before.title}{where} rebuilds: name that release "
        "as well, with another --delta, and its own base with --base"
    )


def is_release(path: Path) -> bool:
    """Whether a delta that releasekit made lies at `path`."""
    return (path / MANIFEST).is_file()


def release_as_base(manifest: Manifest, subject: str) -> Finding:
    """What is said of a delta in the base's place."""
    return Finding(
        kind="release",
        message=f"{subject}: is a delta itself, which holds no model: give the base model "
        f"with --base; {wanted(manifest)}",
    )


def no_model(manifest: Manifest, base: Checkpoint) -> Finding | None:
    """Whether a base that does not fit holds no weights that any delta could be added to.

    Such a cause stands for all that it entails.
    """
    specs = base.specs.values()
    if specs and all(s.dtype is DType.U8 and len(s.shape) == 1 for s in specs):
        return release_as_base(manifest, base.subject)
    how = quantisation(base, (name for name in base.specs if name not in manifest.base))
    if how is None:
        return None
    message = f"{base.subject}: {how}; {wanted(manifest)}"
    return Finding(kind="quantised", message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """What the headers of a base say.

    Attributes:
        faults: findings for which a rebuild is refused.
        notes: the others.
        dtypes: if floats are of another dtype throughout: the dtype found by the expected.
    """

    faults: list[Finding]
    notes: list[Finding]
    dtypes: Mapping[DType, DType]


def compare_headers(manifest: Manifest, base: Checkpoint) -> Headers:
    """Hold the names, shapes and dtypes of a base against those that the delta needs.

    A variant of dtype is left to those who can read values: see `Headers.dtypes`.
    """
    needed = manifest.predictors
    faults = list(_missing(manifest, base))
    pairs = {n: (s, base.specs[n]) for n, s in needed.items() if n in base.specs}
    shapes = {n: pair for n, pair in pairs.items() if pair[0].shape != pair[1].shape}
    dtypes = {n: pair for n, pair in pairs.items() if pair[0].dtype is not pair[1].dtype}
    rows = _rows(shapes)
    variant = _variant(pairs) if dtypes else {}
    if rows is not None:
        faults.append(_vocabulary(manifest, base, list(shapes), *rows))
    if (shapes and rows is None) or (dtypes and not variant):
        other = [n for n, (expected, found) in pairs.items() if expected != found]
        expected, found = pairs[other[0]]
        why = (
            "is another model, or another size of it" if shapes else "was converted in part"
        )
        faults.append(
            Finding(
                kind="shape" if shapes else "dtype",
                message=f"{base.subject}: tensor {shown(other[0])}: expected "
                f"{expected.describe()}, found {found.describe()} ({len(other)} of "
                f"{len(needed)} tensors differ in dtype or shape): this {why}; "
                f"{wanted(manifest)}",
            )
        )
    return Headers(faults=faults, notes=list(_extra(manifest, base)), dtypes=variant)


def _missing(manifest: Manifest, base: Checkpoint) -> Iterator[Finding]:
    needed = manifest.predictors
    missing = [name for name in needed if name not in base.specs]
    if missing and len(missing) == len(needed):
        had = f", such as {shown(next(iter(base.specs)))}" if base.specs else ""
        yield Finding(
            kind="missing",
            message=f"{base.subject}: has none of the {len(needed)} base tensors that the "
            f"delta needs, such as {shown(missing[0])}, but {len(base.specs)} others"
            f"{had}: this is another architecture, or the names are another library's; "
            f"{wanted(manifest)}",
        )
        return
    buffers = [name for name in missing if is_buffer(name)]
    if buffers:
        yield Finding(
            kind="missing-inv-freq",
            message=f"{base.subject}: {len(buffers)} rotary_emb.inv_freq buffers that the "
            "delta needs are missing: converters of transformers 4.32 and later leave them "
            "out; get the base as an earlier one wrote it, or ask the publisher for a "
            f"delta from a base without them; {wanted(manifest)}",
        )
    others = [name for name in missing if not is_buffer(name)]
    if others:
        yield Finding(
            kind="missing",
            message=f"{base.subject}: {len(others)} of the {len(needed)} base tensors that "
            f"the delta needs are missing: {listed(others)}: some of its files are missing "
            f"too, or it is another model; {wanted(manifest)}",
        )


def _extra(manifest: Manifest, base: Checkpoint) -> Iterator[Finding]:
    extra = [name for name in base.specs if name not in manifest.base]
    buffers = [name for name in extra if is_buffer(name)]
    if buffers:
        yield Finding(
            kind="extra-inv-freq",
            message=f"{base.subject}: has {len(buffers)} rotary_emb.inv_freq buffers that "
            "the delta's base has not: they are ignored, since model libraries compute "
            "them",
            fatal=False,
        )
    others = [name for name in extra if not is_buffer(name)]
    if others:
        yield Finding(
            kind="extra",
            message=f"{base.subject}: has {len(others)} tensors that the delta's base has "
            f"not: {listed(others)}: they are ignored",
            fatal=False,
        )


_Pairs = Mapping[str, tuple[TensorSpec, TensorSpec]]


def _rows(shapes: _Pairs) -> tuple[int, int] | None:
    """Rows expected and found, if nothing but the size of a vocabulary differs."""
    counts = set()
    for name, (expected, found) in shapes.items():
        layered = any(part.isdigit() for part in name.split("."))
        if layered or not expected.shape or expected.shape[1:] != found.shape[1:]:
            return None
        counts.add((expected.shape[0], found.shape[0]))
    return counts.pop() if len(counts) == 1 else None


def _vocabulary(
    manifest: Manifest, base: Checkpoint, names: list[str], expected: int, found: int
) -> Finding:
    count = abs(found - expected)
    tokens = "1 token" if count == 1 else f"{count} tokens"
    if count > _FEW_ROWS:
        why = "this base has another vocabulary, and so is another model"
    elif found > expected:
        why = (
            f"{tokens}, such as [PAD], {'was' if count == 1 else 'were'} added to this base"
        )
    else:
        why = f"this base lacks {tokens}, such as [PAD], that the delta's base has"
    return Finding(
        kind="vocabulary",
        message=f"{base.subject}: expected {expected} rows in {listed(names)}, found "
        f"{found}: {why}; {wanted(manifest)}",
    )


def _variant(pairs: _Pairs) -> dict[DType, DType]:
    """The dtype found by the expected one, if one stands for the other throughout."""
    found: dict[DType, set[DType]] = {}
    for expected, spec in pairs.values():
        found.setdefault(expected.dtype, set()).add(spec.dtype)
    if any(len(dtypes) > 1 for dtypes in found.values()):
        return {}
    swaps = {e: dtypes.pop() for e, dtypes in found.items() if dtypes != {e}}
    return swaps if all(castable(found, e) for e, found in swaps.items()) else {}
