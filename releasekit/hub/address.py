"""Where a model is on the Hugging Face Hub, and where huggingface_hub's cache keeps it.

`HF_ENDPOINT` is read each time: huggingface_hub itself reads it once, when it is imported.
The cache's layout is documented, and the same in all versions of huggingface_hub:

    models--ORG--NAME/
      refs/REVISION             which commit the revision was when it was last asked for
      blobs/DIGEST              contents, by SHA-256 in LFS, by git's own digest elsewhere
      snapshots/COMMIT/NAME     a link to the content of that file
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from releasekit.errors import UsageError
from releasekit.names import shown

# The Hub's rules: begins and ends with a letter, a digit or "_"; no "--", no "..".
_NAME: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
# The cache makes a path of a revision; git allows none that would climb out of it either.
_REVISION: Final = r"(?!/)(?!.*\.\.)[^\s\0-\x1f\x7f-\x9f\ud800-\udfff]+"
_REFERENCE: Final = re.compile(
    rf"(?![^@]*(?:--|\.\.))({_NAME}/{_NAME})(?<!\.git)(?:@({_REVISION}))?"
)
_MAIN: Final = "main"
#: How to have the cache on another disk, for messages.
CACHE_ELSEWHERE: Final = "set HF_HOME to a folder on another disk"
#: A commit, or a blob in git.
GIT_ID: Final = re.compile(r"[0-9a-f]{40}")


def is_reference(text: str) -> bool:
    """Whether `text` has the form `org/name` or `org/name@revision`.

    A relative path may have it too: look for that first. The Hub's oldest models have names
    without an organisation, such as `gpt2`; those are not supported, since every word would
    be one, and each can be had under its organisation's: `openai-community/gpt2`.
    """
    return _REFERENCE.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A revision of a model.

    Attributes:
        reference: as the caller wrote it, for messages.
        name: organisation and name.
        revision: a branch, a tag or a commit.
        endpoint: the Hub's address, for requests; may hold a password.
        folder: where the cache keeps the repository.
    """

    reference: str
    name: str
    revision: str
    endpoint: str
    folder: Path

    @classmethod
    def of(cls, reference: str) -> Address:
        """Read `org/name` or `org/name@revision`; raises UsageError."""
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise UsageError(f"{shown(reference)}: expected org/name or org/name@revision")
        from huggingface_hub import constants

        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT
        name, revision = match.groups()
        return cls(
            reference=reference,
            name=name,
            revision=revision or _MAIN,
            endpoint=endpoint,
            folder=Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}",
        )

    def at(self, revision: str) -> Address:
        """The same model in another revision."""
        return replace(self, reference=f"{self.name}@{revision}", revision=revision)

    @property
    def owner(self) -> str:
        """The organisation, or the user."""
        return self.name.partition("/")[0]

    @property
    def site(self) -> str:
        """The Hub's address, for people."""
        parts = urlsplit(self.endpoint)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def page(self) -> str:
        """What people open in a browser."""
        return f"{self.site}/{self.name}"

    def url(self, commit: str, name: str) -> str:
        """Where a file of a commit is downloaded; may lead on to another host."""
        return f"{self.endpoint}/{self.name}/resolve/{commit}/{quote(name)}"

    @property
    def ref(self) -> Path:
        """Says which commit the revision was when it was last asked for."""
        return self.folder / "refs" / self.revision

    @property
    def blobs(self) -> Path:
        """The contents, each under its digest; snapshots link to them."""
        return self.folder / "blobs"

    def snapshot(self, commit: str) -> Path:
        """The files of a commit under their names, as far as they were asked for."""
        return self.folder / "snapshots" / commit

    def lock(self, digest: str) -> Path:
        """What huggingface_hub locks while it brings a content into the cache."""
        return self.folder.parent / ".locks" / self.folder.name / f"{digest}.lock"
