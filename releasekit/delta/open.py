"""Rebuild a release into memory as torch tensors, without writing the model to disk.

Every tensor is checked against its digest before it is handed over. torch is imported
only here, and only when a tensor is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import open_checkpoint
from releasekit.delta.base import check_base
from releasekit.delta.rebuild import Rebuild
from releasekit.delta.release import Release
from releasekit.errors import UsageError
from releasekit.manifest import Manifest
from releasekit.names import shown
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

#: torch's names of the dtypes, where it has one. F4 is stored two values an element.
_TORCH_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
    "F4": "float4_e2m1fn_x2",
}


class OpenDelta:
    """A release on its base, open for reading; a context manager.

    Attributes:
        manifest: what the release says.
    """

    def __init__(
        self, release: Release, rebuild: Rebuild, workers: Workers, kept: ExitStack
    ) -> None:
        self.manifest: Manifest = release.manifest
        self._rebuild = rebuild
        self._workers = workers
        self._kept = kept

    def keys(self) -> list[str]:
        """Names of the target's tensors, in the order in which they are made."""
        return list(self.manifest.target)

    def tensors(
        self,
        names: Iterable[str] | None = None,
        *,
        progress: ProgressCallback | None = None,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Rebuild tensors one after another.

        Args:
            names: which ones, in which order; by default all.
            progress: called with the bytes made so far.

        Yields:
            Name and tensor, on the CPU, with the target's dtype and shape. It is the
            caller's own: nothing else refers to its memory.

        Raises:
            KeyError: if the target has no tensor of a given name.
            UsageError: if torch has no dtype for a tensor.
            BaseMismatchError, FormatError, IntegrityError: as `apply_delta` does.
        """
        specs = self.manifest.target
        wanted = [specs[name] for name in (specs if names is None else names)]
        stage = Stage(progress, "rebuild", sum(spec.nbytes for spec in wanted))
        made: dict[str, tuple[torch.Tensor, NDArray[np.uint8]]] = {}

        def consume(name: str, start: int, data: NDArray[np.uint8]) -> None:
            if start == 0:
                made[name] = _empty(specs[name])
            made[name][1][start : start + data.size] = data
            stage.advance(data.size)

        order = [spec.name for spec in wanted]
        with closing(self._rebuild.tensors(order, self._workers, consume)) as finished:
            for name in finished:
                if name not in made:  # an empty tensor has no chunks
                    made[name] = _empty(specs[name])
                yield name, made.pop(name)[0]

    def state_dict(
        self, *, progress: ProgressCallback | None = None
    ) -> dict[str, torch.Tensor]:
        """All tensors by name; raises as `tensors` does."""
        return dict(self.tensors(progress=progress))

    def close(self) -> None:
        """Close the files."""
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def open_delta(
    delta: str | Path, base: str | Path, *, threads: int | None = None
) -> OpenDelta:
    """Open the release in `delta` on top of `base`, to rebuild it into memory.

    Args:
        delta: folder of the release.
        base: file or folder of the base checkpoint.
        threads: worker threads; by default one a processor.

    Raises:
        UsageError: if a path is wrong.
        FormatError: if an input is malformed.
        BaseMismatchError: if `base` is not the base of this delta.
        IntegrityError: if the release is incomplete.
    """
    with ExitStack() as stack:
        release = stack.enter_context(Release.open(Path(delta)))
        checkpoint = stack.enter_context(open_checkpoint(base))
        workers = stack.enter_context(Workers(threads))
        check_base(release.manifest, checkpoint)
        return OpenDelta(release, Rebuild(release, checkpoint), workers, stack.pop_all())


def _empty(spec: TensorSpec) -> tuple[torch.Tensor, NDArray[np.uint8]]:
    """A new tensor, and its memory as bytes."""
    import torch

    dtype = getattr(torch, _TORCH_DTYPES.get(spec.dtype.label, ""), None)
    if dtype is None:
        raise UsageError(
            f"tensor {shown(spec.name)}: torch has no dtype for {spec.dtype.label}; "
            "rebuild to files with apply-delta instead"
        )
    shape = spec.shape
    if spec.dtype.label == "F4":
        shape = (*shape[:-1], shape[-1] // 2)
    # Of bytes first: numpy has no view of most of these dtypes.
    data = torch.empty(spec.nbytes, dtype=torch.uint8)
    return data.view(dtype).reshape(shape), data.numpy()
