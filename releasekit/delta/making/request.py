"""What a caller of `make_delta` asks for, and how its inputs are found and opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

from releasekit.checkpoint import Checkpoint, open_found
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.files import Coming
from releasekit.checkpoint.locate import Located, reach
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.codec import Ulp
from releasekit.delta.making.order import Order
from releasekit.delta.making.seats import Seat
from releasekit.delta.making.shards import DEFAULT_SHARD_NBYTES
from releasekit.delta.making.source import list_target
from releasekit.delta.making.told import Inputs
from releasekit.delta.notary import TARGET, Hashing, Label, Notary, Source
from releasekit.delta.predecessor import BaseRelease
from releasekit.device.choose import AUTO, Engine
from releasekit.hashing import hash_files
from releasekit.license_files import read_chain
from releasekit.licensing.drawing import papers_of
from releasekit.licensing.papers import Papers
from releasekit.licensing.terms import NO_LICENSE, Licensing
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.signing.keys import PrivateKey
from releasekit.versions import FIRST


class Options(TypedDict, total=False):
    """Arguments of `make_delta` that have defaults; see there."""

    name: str | None
    version: str
    publisher: str | None
    sign_key: PrivateKey | None
    succession: str | Path | None
    licensing: Licensing
    shard_nbytes: int
    exclude: Sequence[str]
    accept: Sequence[str | Path]
    base_release: str | Path | None
    codec: Ulp | None
    force: bool
    device: str
    threads: int | None
    max_memory: int
    progress: ProgressCallback | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """All arguments of `make_delta`; see there."""

    base: str | Path
    target: str | Path
    out: str | Path
    name: str | None = None
    version: str = FIRST
    publisher: str | None = None
    sign_key: PrivateKey | None = None
    succession: str | Path | None = None
    licensing: Licensing = NO_LICENSE
    shard_nbytes: int = DEFAULT_SHARD_NBYTES
    exclude: Sequence[str] = ()
    accept: Sequence[str | Path] = ()
    base_release: str | Path | None = None
    codec: Ulp | None = None
    force: bool = False
    device: str = AUTO
    threads: int | None = None
    max_memory: int = DEFAULT_MAX_MEMORY
    progress: ProgressCallback | None = None
    seat: Seat | None = None

    @contextmanager
    def opened(self, engine: Engine) -> Iterator[Opened]:
        """Open the inputs, and check all that can be checked before any work.

        Args:
            engine: proves the chunks.

        Raises:
            UsageError, FormatError, BaseMismatchError: as `make_delta`.
        """
        before = None
        if self.base_release is not None:
            before = BaseRelease.find(self.base_release, self.progress)
        codec = self.codec or Ulp()
        with ExitStack() as stack:
            at = self._base(stack)
            where = stack.enter_context(reach(self.target, self.progress, whole=True))
            listed = list_target(where.path, self.exclude, where.coming)
            root, found = listed.found.root, find(at.path, coming=at.coming)
            label = Label(
                name=self.name or _default_name(where.path),
                version=self.version,
                publisher=self.publisher,
            )
            label.check()
            files = (*listed.found.files, *listed.others)
            notary = Notary.of(
                sources=(
                    Source.of("base", self.base, found),
                    Source(role=TARGET, root=root, files=files),
                ),
                parameters={
                    "command": "make-delta",
                    "codec": codec.to_json(),
                    "shard_nbytes": self.shard_nbytes,
                    "exclude": list(self.exclude),
                    **self.licensing.parameters,
                    **({"base_release": before.said.title} if before else {}),
                },
                key=self.sign_key,
                succession=self.succession,
                hashing=self._hashing(at.coming),
            )
            target = stack.enter_context(SafetensorsCheckpoint.open(listed.found))
            base: Checkpoint
            if self.seat is not None:
                base, inputs = self.seat.base, None
            else:
                base = stored = stack.enter_context(open_found(found))
                inputs = Inputs(base=stored, found=found, target=target)
            order = Order.of(
                base,
                target,
                {path: root / path for path in listed.others},
                label=label,
                notary=notary,
                papers=self._papers(label.name, at.path, before),
                before=before,
                accept=self.accept,
                shard_nbytes=self.shard_nbytes,
                codec=codec,
                engine=engine,
                threads=self.threads,
                max_memory=self.max_memory,
                progress=self.progress,
            )
            yield Opened(
                order=order,
                stored=inputs,
                base=at,
                target=where,
                excluded=listed.excluded,
            )

    def _base(self, stack: ExitStack) -> Located:
        """Where the base is."""
        if self.seat is not None:
            return Located(path=self.seat.path)
        return stack.enter_context(reach(self.base, self.progress))

    def _hashing(self, coming: Coming | None) -> Hashing:
        """What takes the digests of the base's files."""
        if self.seat is not None:
            return self.seat.digests.hash_files
        return partial(hash_files, coming=coming)

    def _papers(self, name: str, base: Path, before: BaseRelease | None) -> Papers | None:
        """The licences: what the base says of its own, or the release that rebuilds it."""
        if before is not None:
            beside = base if base.is_dir() else base.parent
            if read_chain(beside) is None and read_chain(before.rebuilt) is not None:
                return papers_of(self.licensing, name, before.said.name, before.rebuilt)
        return papers_of(self.licensing, name, self.base, base)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was asked for, with its inputs open.

    Attributes:
        order: the release.
        stored: base and target; None if the base has other readers at the same time.
        base: where the base is.
        target: where the target is.
        excluded: files of the target that are left out.
    """

    order: Order
    stored: Inputs | None
    base: Located
    target: Located
    excluded: tuple[str, ...]

    @property
    def inputs(self) -> Inputs:
        """Base and target."""
        assert self.stored is not None, "who shares a base makes no parts"
        return self.stored

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where both are; an output may touch neither."""
        return self.base.path, self.target.path


def _default_name(target: Path) -> str:
    resolved = target.resolve()
    return resolved.name if resolved.is_dir() else resolved.name.partition(".")[0]
