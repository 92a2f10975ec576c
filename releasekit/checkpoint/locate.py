"""Where a model is: on this machine, or on the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from releasekit.checkpoint.discover import OTHER_WEIGHTS, SUFFIX, choose
from releasekit.progress import ProgressCallback

#: A path that ends so names a file, even if it looks like a model on the Hub.
_FILES: Final = (SUFFIX, ".json", *OTHER_WEIGHTS)


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
    if not _is_on_hub(model):
        return Path(model)  # if it is not there, for whoever opens it to say so
    from releasekit.hub.snapshots import resolve

    return resolve(str(model), wanted=choose, progress=progress)


def hub_owner(model: str | Path) -> str | None:
    """The organisation that a model on the Hub belongs to; None for a path."""
    return str(model).partition("/")[0] if _is_on_hub(model) else None


def package_url(model: str | Path, found: Path) -> str | None:
    """Where others find a model: `pkg:huggingface/org/name@commit`; None for a path.

    Args:
        model: as it was named.
        found: where `locate` found it: for one on the Hub, a snapshot of a commit.

    Source: the type "huggingface" of https://github.com/package-url/purl-spec.
    """
    if not _is_on_hub(model):
        return None
    return f"pkg:huggingface/{str(model).partition('@')[0]}@{found.name}"


def _is_on_hub(model: str | Path) -> bool:
    """Whether there is nothing here of that name, and it is the name of a model there."""
    text = str(model)
    if os.path.lexists(model) or text.endswith(_FILES):
        return False
    from releasekit.hub.snapshots import is_reference

    return is_reference(text)
