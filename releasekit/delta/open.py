"""Rebuild a release into memory as torch tensors, without writing the model to disk.

Chunks are made in the tensors' own memory, or on the device where they are to be, and
every tensor is checked against its digest before it is handed over. torch is imported only
here and under `device`, and only when a tensor is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from releasekit.authenticity import DEFAULT_POLICY, Authenticity, Policy
from releasekit.checkpoint.locate import Located, locate
from releasekit.delta.consent import Consent
from releasekit.delta.lineage import Deltas, Lineage, named, open_lineage
from releasekit.delta.rebuild import Rebuild
from releasekit.device.choose import TORCH_NBYTES
from releasekit.errors import UsageError
from releasekit.manifest import Manifest
from releasekit.names import shown
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.resources import DEFAULT_MAX_MEMORY, share_out

if TYPE_CHECKING:
    import torch


class OpenDelta:
    """A release on its base, open for reading; a context manager.

    Attributes:
        manifest: what the release says.
        authenticity: whose the release is.
    """

    def __init__(
        self,
        lineage: Lineage,
        rebuild: Rebuild,
        threads: int | None,
        max_memory: int,
        kept: ExitStack,
    ) -> None:
        self.manifest: Manifest = lineage.last.manifest
        self.authenticity: Authenticity = lineage.authenticity
        self._lineage = lineage
        self._rebuild = rebuild
        self._threads = threads
        self._max_memory = max_memory
        self._kept = kept

    def keys(self) -> list[str]:
        """Names of the target's tensors, in the order in which they are made."""
        return list(self.manifest.target)

    def tensors(
        self,
        names: Iterable[str] | None = None,
        *,
        device: str | torch.device = "cpu",
        progress: ProgressCallback | None = None,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Rebuild tensors one after another.

        The following ones are worked on while the caller uses one.

        Args:
            names: which ones, in which order; by default all.
            device: where the tensors are to be, as torch names it.
            progress: called with the bytes made so far.

        Yields:
            Name and tensor, with the target's dtype and shape. It is the caller's own:
            nothing else refers to its memory.

        Raises:
            KeyError: if the target has no tensor of a given name.
            UsageError: if torch has no dtype for a tensor, or no such device, or a tensor
                is named twice.
            BaseMismatchError, FormatError, IntegrityError: as `apply_delta` does.
        """
        from releasekit.device.tensors import TensorSink, empty, usable

        specs = self.manifest.target
        wanted = [specs[name] for name in (specs if names is None else names)]
        order = [spec.name for spec in wanted]
        if twice := [name for name, count in Counter(order).items() if count > 1]:
            raise UsageError(f"tensor {shown(twice[0])}: is asked for twice; name it once")
        place = usable(device)
        stage = Stage(progress, "rebuild", sum(spec.nbytes for spec in wanted))
        sink = TensorSink(place, stage, lambda name: empty(specs[name], place))
        rebuild = self._rebuild.combining(sink.combine) if sink.combine else self._rebuild
        resources = share_out(
            rebuild.need(order),
            threads=self._threads,
            max_memory=self._max_memory,
            extra=TORCH_NBYTES,
        )
        with Workers(resources.threads) as workers:
            buffers = resources.buffers(sink.allocate)
            for name in rebuild.tensors(order, workers, buffers, sink):
                yield name, sink.finished(name)

    def state_dict(
        self,
        *,
        device: str | torch.device = "cpu",
        progress: ProgressCallback | None = None,
    ) -> dict[str, torch.Tensor]:
        """All tensors by name; raises as `tensors` does."""
        state = dict(self.tensors(device=device, progress=progress))
        self._lineage.remember()
        return state

    def close(self) -> None:
        """Close the files."""
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def open_delta(
    delta: Deltas,
    base: str | Path,
    *,
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> OpenDelta:
    """Open the release in `delta` on top of `base`, to rebuild it into memory.

    Args:
        delta: the release: a path, or on the Hub; or several that build on each other, as
            in `apply_delta`.
        base: the base checkpoint, likewise.
        policy: what is asked of the release's signature.
        accept_license: as in `apply_delta`.
        threads: worker threads; by default one a processor.
        max_memory: bytes of host memory to use at most, beyond the tensors themselves.

    Raises:
        UsageError: if a path is wrong.
        FormatError: if an input is malformed.
        BaseMismatchError: if `base` is not the base of this delta.
        IntegrityError: if the release is incomplete.
        SignatureError: if `policy` refuses the release.
        LicenseError: if terms must be accepted, and were not.
    """
    with ExitStack() as stack:
        deltas = named(delta)
        found = [Located(path=locate(one)) for one in deltas]
        lineage = stack.enter_context(open_lineage(deltas, found, policy))
        checkpoint = stack.enter_context(lineage.open_base(Located(path=locate(base))))
        lineage.check_base(checkpoint)
        lineage.agree(accept_license)
        rebuild = lineage.rebuild(checkpoint)
        return OpenDelta(lineage, rebuild, threads, max_memory, stack.pop_all())
