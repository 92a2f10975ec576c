"""Where a model is: on this machine, on the Hugging Face Hub, or in object storage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit.checkpoint.discover import OTHER_WEIGHTS, SUFFIX, choose
from releasekit.checkpoint.files import Incoming
from releasekit.errors import UsageError
from releasekit.progress import ProgressCallback
from releasekit.storage.address import absolute, is_stored, text

#: A path that ends so names a file, even if it looks like a model on the Hub.
_FILES: Final = (SUFFIX, ".json", *OTHER_WEIGHTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a model is, though not all of it need be there yet.

    Attributes:
        path: a file or a folder.
        coming: safetensors files of the folder that have yet to be downloaded, or stay in
            object storage; None if all is there.
        origin: where others find it; None if that is `path`.
    """

    path: Path
    coming: Incoming | None = None
    origin: Path | None = None

    @property
    def shared(self) -> Path:
        """Where other processes find it, on machines that have the same files."""
        return self.origin or self.path.absolute()

    @property
    def coming_nbytes(self) -> int:
        """Bytes that have yet to be downloaded."""
        return self.coming.nbytes if self.coming is not None else 0


def locate(model: str | Path, progress: ProgressCallback | None = None) -> Path:
    """A local path for a model.

    Args:
        model: a path, which is returned as it is; or, if nothing is there, `org/name` or
            `org/name@revision` on the Hub: its weights and the small files beside them are
            found in the local cache, or downloaded to it.
        progress: called with the bytes downloaded.

    Raises:
        HubError: if the Hub has no such model, or cannot be reached.
        IntegrityError: if what was downloaded is not what the Hub lists.
    """
    if is_stored(model):
        raise UsageError(
            f"{text(model)}: this reads files of this machine alone: copy it to a folder, "
            "and name that; make-delta, apply-delta, convert and verify read object storage"
        )
    if not is_on_hub(model):
        return Path(model)  # if it is not there, for whoever opens it to say so
    from releasekit.hub.snapshots import resolve

    return resolve(str(model), wanted=choose, progress=progress)


def look(model: str | Path, progress: ProgressCallback | None = None) -> Path:
    """The same, without weights in safetensors: what else there is says what it is."""
    if is_stored(model):
        from releasekit.storage.staging import stage

        return stage(model, choose, _is_late).folder
    if not is_on_hub(model):
        return Path(model)
    from releasekit.hub.snapshots import resolve

    return resolve(str(model), wanted=choose, late=_is_late, progress=progress)


@contextmanager
def approach(
    model: str | Path, progress: ProgressCallback | None = None
) -> Iterator[Located]:
    """The same, with weights in safetensors left on the Hub until they are needed.

    They can be read by range at once, and are downloaded when that is asked for
    (`Incoming.start`). The small files are there. In object storage they stay where they
    are.
    """
    if is_stored(model):
        with _in_storage(model, choose) as at:
            yield at
        return
    if not is_on_hub(model):
        yield Located(path=Path(model))
        return
    from releasekit.hub.arrivals import arriving

    with arriving(str(model), wanted=choose, late=_is_late, progress=progress) as (
        folder,
        coming,
    ):
        yield Located(path=folder, coming=coming)


@contextmanager
def reach(
    model: str | Path, progress: ProgressCallback | None = None, *, whole: bool = False
) -> Iterator[Located]:
    """A model for who reads all of it: from the Hub it is downloaded first.

    Args:
        model: as for `locate`; or in object storage, where weights stay.
        progress: called with the bytes downloaded.
        whole: whether all files of a folder in object storage are wanted, rather than
            those that a checkpoint needs.

    Raises as `locate` does; OSError if object storage cannot be read.
    """
    if is_stored(model):
        with _in_storage(model, list if whole else choose) as at:
            yield at
        return
    yield Located(path=locate(model, progress))


@contextmanager
def _in_storage(
    model: str | Path, wanted: Callable[[list[str]], list[str]]
) -> Iterator[Located]:
    from releasekit.storage.staging import staged

    with staged(model, wanted, _is_late) as (folder, coming):
        yield Located(path=folder, coming=coming, origin=absolute(Path(model)))


def _is_late(name: str) -> bool:
    return name.endswith(SUFFIX)


def hub_owner(model: str | Path) -> str | None:
    """The organisation that a model on the Hub belongs to; None for a path."""
    return str(model).partition("/")[0] if is_on_hub(model) else None


def package_url(model: str | Path, found: Path) -> str | None:
    """Where others find a model: `pkg:huggingface/org/name@commit`; None for a path.

    Args:
        model: as it was named.
        found: where `locate` found it: for one on the Hub, a snapshot of a commit.

    Source: the type "huggingface" of https://github.com/package-url/purl-spec.
    """
    if not is_on_hub(model):
        return None
    return f"pkg:huggingface/{str(model).partition('@')[0]}@{found.name}"


def refuse_hub(*models: str | Path) -> None:
    """Refuse models that each of several machines would download; raises UsageError."""
    for model in models:
        if is_on_hub(model):
            raise UsageError(
                f"{model}: is on the Hub, and every machine would download all of it: "
                f"`releasekit fetch {model} --out FOLDER` on the file system that they "
                f"share, and name that folder; or name hf://{model}, of which each part "
                "reads what it needs"
            )


def is_on_hub(model: str | Path) -> bool:
    """Whether there is nothing here of that name, and it is the name of a model there."""
    name = str(model)
    if os.path.lexists(model) or name.endswith(_FILES):
        return False
    from releasekit.hub.address import is_reference

    return is_reference(name)
