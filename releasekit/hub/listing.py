"""Which files a revision of a model has: their sizes and digests, as the Hub lists them.

A listing is what somebody else says. Names and digests are checked for their form here;
what arrives is held against it, and against the publisher's own list where there is one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from releasekit.digest import hash_file
from releasekit.errors import FormatError
from releasekit.hub.address import GIT_ID, Address
from releasekit.hub.answers import persist
from releasekit.names import folded, refuse_clashes, safe_path, shown

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_GITS_OWN: Final = {".git", "git~1"}
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file as the Hub lists it.

    Attributes:
        nbytes: its size; None if that is not listed, as by some mirrors.
        digest: of its content; None if that is not listed.
        lfs: whether the digest is SHA-256, as in LFS, or that of a blob in git.
    """

    nbytes: int | None
    digest: str | None
    lfs: bool

    @property
    def sha256(self) -> str | None:
        """SHA-256 of its content; None if it is not in LFS."""
        return self.digest if self.lfs else None

    def digest_of(self, path: Path) -> str:
        """The digest that a file on disk has in place of the listed one."""
        if self.lfs:
            return hash_file(path)
        return git_digest(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of one commit.

    Attributes:
        commit: its id.
        files: by name; no two are one file where case is not kept apart, and none leaves
            the folder, as far as they were checked: see `checked`.
        private: whether only some may see the model.
        gated: whether who downloads it is asked to agree first, and who decides: "auto",
            "manual" or None.
    """

    commit: str
    files: Mapping[str, HubFile]
    private: bool = False
    gated: str | None = None

    def checked(self, address: Address, names: Iterable[str]) -> list[str]:
        """Names of files that may be written to a disk; FormatError if some may not."""
        names = list(names)
        for name in names:
            safe_path(name, address.page)
            if not _GITS_OWN.isdisjoint(folded(name).split("/")):
                # Git would take orders from it, in the folder that it is downloaded to.
                raise FormatError(
                    f"{address.page}: path {shown(name)} is git's own, and in no commit"
                )
        refuse_clashes(names, address.page)
        return names


def list_files(address: Address, *, attempts: int = 0) -> Listing:
    """Ask the Hub what the revision holds now.

    Args:
        address: the revision.
        attempts: how often to ask; see `persist`.

    Raises:
        FaultError: if the Hub refuses, or cannot be reached.
        FormatError: if what it lists cannot be.
    """
    from huggingface_hub import HfApi, constants

    def ask() -> tuple[str | None, dict[str, HubFile], bool, str | None]:
        info = HfApi(endpoint=address.endpoint).model_info(
            address.name,
            revision=address.revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        files = {file.rfilename: _file(address, file) for file in info.siblings or ()}
        gated = info.gated if isinstance(info.gated, str) else None
        return info.sha, files, bool(info.private), gated

    commit, files, private, gated = persist(address, ask, attempts=attempts)
    if commit is None or not GIT_ID.fullmatch(commit):
        raise FormatError(f"{address.page}: expected a commit, found {shown(str(commit))}")
    return Listing(commit=commit, files=files, private=private, gated=gated)


def git_digest(path: Path) -> str:
    """What git calls a file's content: SHA-1 of a header and the bytes."""
    header = b"blob %d\0" % path.stat().st_size
    return hash_file(path, partial(hashlib.sha1, header, usedforsecurity=False))


def _file(address: Address, sibling: RepoSibling) -> HubFile:
    lfs = sibling.lfs is not None
    digest = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
    if digest is not None and not (_SHA256 if lfs else GIT_ID).fullmatch(digest):
        raise FormatError(
            f"{address.page}: {shown(sibling.rfilename)}: {shown(digest)} is no digest"
        )
    nbytes: object = sibling.lfs.size if sibling.lfs is not None else sibling.size
    if nbytes is not None and not (isinstance(nbytes, int) and nbytes >= 0):
        raise FormatError(
            f"{address.page}: {shown(sibling.rfilename)}: {shown(str(nbytes))} is no size"
        )
    return HubFile(nbytes=nbytes, digest=digest, lfs=lfs)
