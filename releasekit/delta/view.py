"""A release as the safetensors files that it would rebuild: read, never written.

Loaders of models open each file with `safetensors.safe_open` and take tensors, or slices of
them, out of it. A view answers the same calls with the same values, and decodes what is
asked for when it is asked for. Tensors that are read whole are held against their digests
before they are handed over; slices cannot be.

A slice along the first dimension decodes the chunks that it touches. One along others
touches all, but keeps no more than its result and a chunk.

Views may be used from several threads at once, but for `close`, which is for the last.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.authenticity import DEFAULT_POLICY, Authenticity, Policy
from releasekit.checkpoint.locate import Located, locate
from releasekit.delta.consent import Consent
from releasekit.delta.lineage import Deltas, Lineage, named, open_lineage
from releasekit.delta.virtual import VirtualCheckpoint
from releasekit.device.choose import TORCH_NBYTES
from releasekit.device.frameworks import Framework, ViewError, framework_of
from releasekit.digest import blake3
from releasekit.layout import Layout
from releasekit.manifest import Manifest
from releasekit.names import listed, shown
from releasekit.pipeline import Workers
from releasekit.resources import DEFAULT_MAX_MEMORY, share_out
from releasekit.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

_ALL: Final = slice(None)


class FileView:
    """One file, as `safetensors.safe_open` opens it; a context manager.

    It stays open until its view is closed: leaving it closes nothing.
    """

    def __init__(self, view: View, layout: Layout) -> None:
        self._view = view
        self._layout = layout
        self._names = {placed.spec.name for placed in layout.tensors}

    def keys(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._names)

    def offset_keys(self) -> list[str]:
        """Names of the tensors, in the order of their data, in which reading is fastest."""
        return [placed.spec.name for placed in self._layout.tensors]

    def metadata(self) -> dict[str, str] | None:
        """The header's free-form strings."""
        return self._layout.metadata

    def get_tensor(self, name: str) -> Any:
        """As `View.get_tensor`."""
        self._require(name)
        return self._view.get_tensor(name)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors by name."""
        return {name: self.get_tensor(name) for name in self.offset_keys()}

    def get_slice(self, name: str) -> SliceView:
        """As `View.get_slice`."""
        self._require(name)
        return self._view.get_slice(name)

    def _require(self, name: str) -> None:
        if name not in self._names:
            raise ViewError(f"the file does not contain tensor {shown(name)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        pass


class SliceView:
    """A tensor to take slices of, as `safe_open(...).get_slice` gives it."""

    def __init__(self, view: View, spec: TensorSpec) -> None:
        self._view = view
        self._spec = spec

    def get_shape(self) -> list[int]:
        """Sizes, outermost first."""
        return list(self._spec.shape)

    def get_dtype(self) -> str:
        """The dtype, as safetensors calls it."""
        return self._spec.dtype.label

    def __getitem__(self, index: Any) -> Any:
        """What indexing the whole tensor would give, as torch or numpy understand it."""
        return self._view._slice(self._spec, index)


class View:
    """The files that a release would rebuild; a context manager.

    Also all their tensors at once: `keys`, `get_tensor` and so on, as in each file.

    Attributes:
        manifest: what the release says.
        authenticity: whose the release is.
        files: the safetensors files, by their paths in the model.
    """

    def __init__(
        self,
        lineage: Lineage,
        checkpoint: VirtualCheckpoint,
        framework: Framework,
        workers: Workers,
        kept: ExitStack,
    ) -> None:
        self.manifest: Manifest = lineage.last.manifest
        self.authenticity: Authenticity = lineage.authenticity
        self._layouts = {entry.file.path: entry.layout for entry in self.manifest.weights}
        self.files = tuple(self._layouts)
        self._checkpoint = checkpoint
        self._framework = framework
        self._workers = workers
        self._kept = kept
        self._closed = False

    def file(self, path: str) -> FileView:
        """One of `files`.

        Raises:
            ViewError: if it is none of them.
        """
        if path not in self._layouts:
            raise ViewError(
                f"{self.manifest.name} has no file {shown(path)} of tensors; it has "
                f"{listed(self.files)}"
            )
        return FileView(self, self._layouts[path])

    def keys(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self.manifest.target)

    def offset_keys(self) -> list[str]:
        """Names of all tensors, file by file, in the order of their data."""
        return list(self.manifest.target)

    def metadata(self) -> dict[str, str] | None:
        """The free-form strings that all files have in common; None if none has any."""
        found = [layout.metadata for layout in self._layouts.values()]
        if all(each is None for each in found):
            return None
        first, *others = ((each or {}).items() for each in found)
        return {
            key: text for key, text in first if all((key, text) in each for each in others)
        }

    def get_tensor(self, name: str) -> Any:
        """A whole tensor, right by its digest.

        Raises:
            ViewError: if there is none of that name, or it cannot be had as asked.
            BaseMismatchError, FormatError, IntegrityError: as `apply_delta` does.
        """
        spec = self._spec(name)
        data = np.empty(spec.nbytes, np.uint8)
        hasher = blake3()
        step = self._checkpoint.piece(name) * spec.dtype.word.bits // 8

        def make(start: int, _: object) -> NDArray[np.uint8]:
            part = data[start : start + step]
            self._checkpoint.read(name, start, part)
            return part

        starts = range(0, spec.nbytes, max(step, 1))
        with closing(self._workers.in_order(make, starts)) as made:
            for _, part in made:
                hasher.update(part.data)
        self._checkpoint.check(name, hasher.hexdigest())
        return self._framework.hand_over(self._framework.seen(data, spec, spec.shape))

    def get_tensors(self) -> dict[str, Any]:
        """All tensors by name."""
        return {name: self.get_tensor(name) for name in self.offset_keys()}

    def get_slice(self, name: str) -> SliceView:
        """A tensor to take slices of; ViewError if there is none of that name."""
        return SliceView(self, self._spec(name))

    def _spec(self, name: str) -> TensorSpec:
        if self._closed:
            raise ViewError(f"the view of {self.manifest.name} is closed")
        if name not in self.manifest.target:
            raise ViewError(f"{self.manifest.name} does not contain tensor {shown(name)}")
        spec = self.manifest.target[name]
        self._framework.require(spec)
        return spec

    def _slice(self, spec: TensorSpec, index: Any) -> Any:
        """Part of a tensor, of which no more is decoded than must be."""
        self._spec(spec.name)  # raises if the view was closed meanwhile
        parts = _simple(index, len(spec.shape))
        if not parts or not spec.nbytes or spec.dtype.bits < 8:
            return self.get_tensor(spec.name)[index]
        first, *rest = parts
        every = range(spec.shape[0])
        if isinstance(first, slice):
            rows = every[first]
            if rows == every and all(part == _ALL for part in rest):
                return self.get_tensor(spec.name)
            return self._framework.hand_over(self._rows(spec, rows, (_ALL, *rest)))
        if first not in range(-len(every), len(every)):
            raise IndexError(
                f"index {first} is out of bounds for dimension 0 with size {len(every)}"
            )
        at = every[first]
        made = self._rows(spec, range(at, at + 1), (_ALL, *rest))
        return self._framework.hand_over(made[0])

    def _rows(self, spec: TensorSpec, rows: range, index: tuple[Any, ...]) -> Any:
        """Some rows of a tensor, each indexed further; made block by block."""
        row = spec.nbytes // spec.shape[0]
        piece = self._checkpoint.piece(spec.name) * spec.dtype.word.bits // 8
        block = max(piece // row, 1)
        nothing = self._framework.seen(np.empty(0, np.uint8), spec, (0, *spec.shape[1:]))[
            index
        ]
        out = self._framework.empty(nothing, len(rows))
        done = 0
        while done < len(rows):
            first = rows[done]
            stop = min((first // block + 1) * block, rows[-1] + 1)
            data = np.empty((stop - first) * row, np.uint8)
            self._checkpoint.read(spec.name, first * row, data)
            part = self._framework.seen(data, spec, (stop - first, *spec.shape[1:]))
            part = part[:: rows.step][index]
            out[done : done + len(part)] = part
            done += len(part)
        return out

    def close(self) -> None:
        """Close the files."""
        self._closed = True
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def open_view(
    delta: Deltas,
    base: str | Path,
    *,
    framework: str = "pt",
    device: str | int | torch.device = "cpu",
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> View:
    """Open the release in `delta` on top of `base` as the files that it would rebuild.

    Args:
        delta: the release: a path, or on the Hub; or several that build on each other, as
            in `apply_delta`.
        base: the base checkpoint, likewise.
        framework: whose tensors are wanted: "pt" or "np".
        device: where they are to be, as torch names it.
        policy: what is asked of the release's signature.
        accept_license: as in `apply_delta`.
        threads: threads that make one tensor; by default one a processor.
        max_memory: bytes of host memory to use at most, beyond the tensors themselves.

    Raises:
        UsageError: if a path is wrong, or there is no such framework or device.
        FormatError: if an input is malformed.
        BaseMismatchError: if `base` is not the base of this delta.
        IntegrityError: if the release is incomplete.
        SignatureError: if `policy` refuses the release.
        LicenseError: if terms must be accepted, and were not.
    """
    wanted = framework_of(framework, device)
    with ExitStack() as stack:
        deltas = named(delta)
        found = [Located(path=locate(one)) for one in deltas]
        lineage = stack.enter_context(open_lineage(deltas, found, policy))
        checkpoint = stack.enter_context(lineage.open_base(Located(path=locate(base))))
        lineage.check_base(checkpoint)
        lineage.check_files()
        lineage.agree(accept_license)
        virtual = lineage.virtual(checkpoint)
        resources = share_out(
            virtual.need(virtual.specs),
            threads=threads,
            max_memory=max_memory,
            extra=TORCH_NBYTES,
        )
        workers = stack.enter_context(Workers(resources.threads))
        lineage.remember()
        return View(lineage, virtual, wanted, workers, stack.pop_all())


def _simple(index: Any, rank: int) -> list[int | slice]:
    """An index for each dimension up to the last that is indexed, at least the first.

    Returns:
        Integers and slices that go forward; nothing at all if it is no index of these, or
        not one for so few dimensions.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    gaps = [at for at, part in enumerate(parts) if part is Ellipsis]
    if len(gaps) > 1 or len(parts) - len(gaps) > rank:
        return []
    if gaps:
        missing = rank - (len(parts) - 1)
        parts[gaps[0] : gaps[0] + 1] = [_ALL] * missing
    elif not parts:
        parts = [_ALL] * rank
    return parts if all(map(_is_simple, parts)) else []


def _is_simple(part: Any) -> bool:
    if isinstance(part, slice):
        return part.step is None or (isinstance(part.step, int) and part.step > 0)
    return isinstance(part, int) and not isinstance(part, bool)
