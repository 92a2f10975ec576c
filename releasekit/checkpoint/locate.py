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
    if os.path.lexists(model):
        return Path(model)
    from releasekit.hub import is_reference, resolve

    text = str(model)
    if text.endswith(_FILES) or not is_reference(text):
        return Path(model)  # for whoever opens it to say that it is not there
    return resolve(text, wanted=choose, progress=progress)
