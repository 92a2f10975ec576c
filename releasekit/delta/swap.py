"""Swap a release into a model that holds its base, and out again, without a second base.

A server that keeps one base in memory can so serve one fine-tune after another. Only the
delta is read, both ways. What it takes to go back is kept in memory: for a usual fine-tune,
some hundredths of the model (see `codec.undo`).

The base is held against its digests before the first byte changes, the target once it is
there, and the base once it is back. A swap that fails is taken back: the model holds the
base or the release, or the error says that it holds neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from releasekit.authenticity import DEFAULT_POLICY, Authenticity, Policy
from releasekit.checkpoint.locate import Located, locate
from releasekit.delta.consent import Consent
from releasekit.delta.lineage import Lineage, open_lineage
from releasekit.delta.load import check_memory, needed_of, tensors_of
from releasekit.device.choose import TORCH_NBYTES
from releasekit.errors import IntegrityError, ReleaseKitError, UsageError
from releasekit.manifest import Manifest
from releasekit.names import shown
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY, Resources, share_out

if TYPE_CHECKING:
    import torch

    from releasekit.delta.exchange import Exchange, TensorError

    Model = torch.nn.Module | Mapping[str, torch.Tensor]


def swap_in(
    model: Model,
    delta: str | Path,
    *,
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> Swapped:
    """Put the release in `delta` in the place of its base, which the model holds.

    Nothing else may use the model meanwhile. As for `load_into`, its tensors must have the
    release's dtypes and shapes, and what the release does not have is left alone.

    Args:
        model: a module, or tensors by name, on any devices.
        delta: the release: a path, or on the Hub. Its files must stay until it is out.
        policy: what is asked of the release's signature.
        accept_license: as in `apply_delta`.
        threads: worker threads, both ways; by default one a processor.
        max_memory: bytes of host memory to use at most, beyond the model and what is kept
            to go back (`Swapped.undo_nbytes`).
        progress: called with the state of each stage.

    Returns:
        The way back.

    Raises:
        UsageError: if a path is wrong, or the model does not have the release's tensors.
        BaseMismatchError: if what the model holds is not the base of this delta.
        SignatureError: if `policy` refuses the release.
        LicenseError: if terms must be accepted, and were not.
        FormatError: if the release is malformed.
        IntegrityError: if it is damaged.

    Whatever is raised, the model holds the base as before; unless an IntegrityError says
    that it could not be restored.
    """
    with ExitStack() as stack:
        prepared = _prepare(
            stack,
            model,
            delta,
            policy=policy,
            accept_license=accept_license,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
        return prepared.swap_in(stack, progress)


class Swapped:
    """A release in the place of its base; a context manager, which swaps it out.

    Attributes:
        manifest: what the release says.
        authenticity: whose the release is.
        undo_nbytes: bytes of memory that are kept to go back.
    """

    def __init__(self, prepared: _Prepared, kept: ExitStack) -> None:
        self.manifest = prepared.manifest
        self.authenticity: Authenticity = prepared.lineage.authenticity
        self.undo_nbytes = prepared.exchange.nbytes
        self._chunks = prepared.exchange.pending
        self._prepared: _Prepared | None = prepared
        self._kept = kept
        self._lost = False

    @property
    def is_in(self) -> bool:
        """Whether the release is in its base's place still."""
        return self._prepared is not None

    def undo(self, *, progress: ProgressCallback | None = None) -> str:
        """Swap the release out; nothing happens if it is out already.

        What is interrupted, by the user or by the system, is continued by another call.

        Args:
            progress: called with the state of each stage.

        Returns:
            The identity of the base, which the model holds again.

        Raises:
            UsageError: if the model's tensors are no longer those that were swapped, or the
                model was lost before.
            IntegrityError: if the release's files have changed, and the model holds the
                release still; or if the model has, and is lost, as the message says.
        """
        if self._lost:
            raise UsageError(
                f"{self.manifest.name} cannot be swapped out: that failed before, and the "
                "model holds neither it nor its base: load the base anew"
            )
        if self._prepared is not None:
            self._swap_out(self._prepared, progress)
        return self.manifest.base_identity

    def _swap_out(self, prepared: _Prepared, progress: ProgressCallback | None) -> None:
        from releasekit.delta.exchange import TensorError

        prepared.require_places()
        try:
            prepared.exchange.swap_out(prepared.resources, progress)
        except TensorError as fault:
            self._lost = True
            self._close()
            raise IntegrityError(
                f"the model in memory: tensor {shown(fault.name)}: {fault.__cause__}: it "
                f"was changed after {self.manifest.name} was swapped in, or this machine's "
                "memory fails; the model holds neither the release nor its base now: load "
                "the base anew"
            ) from fault.__cause__
        except IntegrityError as error:
            whole = prepared.exchange.pending == self._chunks
            state = "the model holds" if whole else "parts of the model hold"
            raise IntegrityError(
                f"{error}, and swap it out then; {state} {self.manifest.name} still"
            ) from error
        self._close()

    def switch(
        self,
        delta: str | Path,
        *,
        policy: Policy = DEFAULT_POLICY,
        accept_license: Consent = False,
        progress: ProgressCallback | None = None,
    ) -> Swapped:
        """Swap this release out, and another of the same base in.

        That one is opened first: if it is refused, this one stays. If it turns out to be
        damaged only when it is swapped in, the model holds the base.

        Args:
            delta: the other release, as for `swap_in`.
            policy: what is asked of its signature.
            accept_license: as in `apply_delta`.
            progress: called with the state of each stage.

        Returns:
            The way back from the other.

        Raises:
            ReleaseKitError: as `undo` and `swap_in`.
        """
        if self._prepared is None:
            self.undo()  # raises if the model was lost
            raise UsageError(
                f"{self.manifest.name} was swapped out: use swap_in for another release"
            )
        model, resources = self._prepared.model, self._prepared.resources
        with ExitStack() as stack:
            prepared = _prepare(
                stack,
                model,
                delta,
                policy=policy,
                accept_license=accept_license,
                threads=resources.threads,
                max_memory=self._prepared.max_memory,
                progress=progress,
            )
            self.undo(progress=progress)
            return prepared.swap_in(stack, progress)

    def keep(self) -> None:
        """Let the release stay for good: forget the way back, and close its files."""
        self._close()

    def _close(self) -> None:
        self._prepared = None
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._prepared is not None:
            self.undo()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A release and a model that fits it, ready to be swapped."""

    model: Model
    lineage: Lineage
    exchange: Exchange
    resources: Resources
    max_memory: int

    @property
    def manifest(self) -> Manifest:
        """The release's."""
        return self.lineage.last.manifest

    def swap_in(self, stack: ExitStack, progress: ProgressCallback | None) -> Swapped:
        """Check the base, and swap; `stack` is taken over if that succeeds."""
        from releasekit.delta.exchange import TensorError

        self.require_places()
        held = self.exchange.memory.only(needed_of(self.manifest))
        check_memory(self.manifest, held, self.resources.threads, progress)
        try:
            self.exchange.swap_in(self.resources, progress)
        except TensorError as fault:
            self._take_back(fault)
            raise self._explained(fault) from fault.__cause__
        except BaseException as error:
            self._take_back(error)
            error.add_note("the model holds the base again")
            raise
        self.lineage.remember()
        return Swapped(self, stack.pop_all())

    def require_places(self) -> None:
        """Refuse a model whose tensors are no longer where they were, as UsageError."""
        strayed = self.exchange.memory.strayed(_state(self.model))
        if strayed is not None:
            raise UsageError(
                f"the model's tensor {shown(strayed)}: is not where it was when "
                f"{self.manifest.name} was swapped in: a model must not be moved, cast or "
                "given other tensors meanwhile; load the base anew"
            )

    def _take_back(self, error: BaseException) -> None:
        """Undo what was done; IntegrityError if that fails, too."""
        from releasekit.delta.exchange import TensorError

        try:
            self.exchange.swap_out(self.resources, None)
        except (TensorError, ReleaseKitError, OSError) as failure:
            why = failure.__cause__ if isinstance(failure, TensorError) else failure
            first = error.__cause__ if isinstance(error, TensorError) else error
            raise IntegrityError(
                f"{self.lineage.last.folder}: cannot be swapped in ({first}), nor out "
                f"again ({why}); the model holds neither the release nor its base now: "
                "load the base anew"
            ) from error

    def _explained(self, fault: TensorError) -> ReleaseKitError:
        """Whose fault it is, now that the model holds the base again."""
        cause = fault.__cause__
        assert isinstance(cause, ReleaseKitError)  # what `exchange` raises it from
        try:
            rebuild = self.lineage.rebuild(self.exchange.memory)
            found = rebuild.diagnosis(fault.name, cause)
        except IntegrityError as error:
            found = error
        return type(found)(f"{found}; the model holds the base again")


def _prepare(
    stack: ExitStack,
    model: Model,
    delta: str | Path,
    *,
    policy: Policy,
    accept_license: Consent,
    threads: int | None,
    max_memory: int,
    progress: ProgressCallback | None,
) -> _Prepared:
    """Open a release, and see that the model could hold it; `stack` closes it."""
    from releasekit.delta.exchange import Exchange
    from releasekit.device.memory import ModelMemory

    found = Located(path=locate(delta, progress))
    lineage = stack.enter_context(open_lineage([delta], [found], policy))
    manifest = lineage.last.manifest
    tensors = tensors_of(model, manifest)
    needed_of(manifest)
    lineage.check_files()
    lineage.agree(accept_license)
    exchange = Exchange(lineage.last, ModelMemory(tensors, manifest.target))
    resources = share_out(
        exchange.need, threads=threads, max_memory=max_memory, extra=TORCH_NBYTES
    )
    return _Prepared(
        model=model,
        lineage=lineage,
        exchange=exchange,
        resources=resources,
        max_memory=max_memory,
    )


def _state(model: Model) -> Mapping[str, torch.Tensor]:
    return model if isinstance(model, Mapping) else model.state_dict()
