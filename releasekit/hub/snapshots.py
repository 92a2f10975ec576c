"""Models on the Hugging Face Hub: from `org/name@revision` to a folder on this disk.

The Hub says which commit a revision is now, and which files that commit holds, with their
sizes and digests. What the local cache lacks of them, huggingface_hub downloads into it;
the folder is the cache's own snapshot of the commit, which other tools use as well.

huggingface_hub checks the size of what it downloads, and no more. So each file that joins
a snapshot is hashed here, and leaves it again unless it has the digest that the Hub lists:
SHA-256 in LFS, git's own elsewhere. Files that the snapshot held before are taken as they
are, since hashing a model each time that it is opened would take as long as using it.

If the Hub cannot be reached, the snapshot that the cache holds of the revision serves, with
what is in it. The folder's name is its commit, so it can be told which one that was.

Files are fetched one after another in the caller's thread, so that Ctrl-C ends it at once.
Xet, which carries most of the Hub's weights, is parallel inside each file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from releasekit.digest import hash_file
from releasekit.errors import FormatError, HubError, IntegrityError, UsageError
from releasekit.names import refuse_clashes, safe_path, shown
from releasekit.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoSibling
    from huggingface_hub.utils.tqdm import tqdm

# The Hub's rules: begins and ends with a letter, a digit or "_"; no "--", no "..".
_NAME: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
# The cache makes a path of a revision; git allows none that would climb out of it either.
_REVISION: Final = r"(?!/)(?!.*\.\.)[^\s\0-\x1f\x7f-\x9f\ud800-\udfff]+"
_REFERENCE: Final = re.compile(
    rf"(?![^@]*(?:--|\.\.))({_NAME}/{_NAME})(?<!\.git)(?:@({_REVISION}))?"
)
_MAIN: Final = "main"
_GIT_ID: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAMES_SHOWN: Final = 4


def is_reference(text: str) -> bool:
    """Whether `text` has the form `org/name` or `org/name@revision`.

    A relative path may have it too: look for that first. The Hub's oldest models have names
    without an organisation, such as `gpt2`; those are not supported, since every word would
    be one, and each can be had under its organisation's: `openai-community/gpt2`.
    """
    return _REFERENCE.fullmatch(text) is not None


def resolve(
    reference: str,
    *,
    wanted: Callable[[list[str]], list[str]],
    progress: ProgressCallback | None = None,
) -> Path:
    """A local folder with the wanted files of a model on the Hub.

    It is a snapshot in huggingface_hub's cache, and not to be written to. It may hold more
    files than are wanted, and fewer if the Hub could not be reached.

    Args:
        reference: `org/name` or `org/name@revision`: a branch, a tag or a commit.
        wanted: given the names of all files of the revision, returns those needed; none if
            nothing is of use. Without the Hub it is given those that the cache holds.
        progress: told how many bytes have come of those that were missing.

    Raises:
        UsageError: if nothing there is wanted.
        HubError: if the Hub refuses, or cannot be reached and the cache does not help.
        FormatError: if what the Hub lists cannot be, such as a name that leaves the folder.
        IntegrityError: if a file that came is not the one that the Hub lists.
        OSError: if the cache cannot be written, as on a full disk.
    """
    repo = _Repo.of(reference)
    try:
        commit, files = _listing(repo)
    except _UnreachableError as error:
        folder = _cached(repo)
        if folder is None or not wanted(_names(folder)):
            raise HubError(
                f"{reference}: is no path here; {error.what}, and {repo.folder} does not "
                f"hold what is needed; {error.step}"
            ) from error
        return folder
    names = wanted(list(files))
    if not names:
        raise UsageError(
            f"{reference}: none of its files is of use here ({_some(files)}); name another "
            "model, or another revision after an @"
        )
    for name in names:
        safe_path(name, repo.page)
    refuse_clashes(names, repo.page)
    folder = repo.snapshot(commit)
    missing = {name: files[name] for name in names if not (folder / name).exists()}
    if missing:
        stage = Stage(progress, "download", sum(file.nbytes for file in missing.values()))
        for name, file in missing.items():
            _add(repo, commit, name, file, _Share(stage, file.nbytes))
    _remember(repo, commit)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repo:
    """A repository, at the Hub and in the cache.

    The cache's layout is documented, and the same in all versions of huggingface_hub.

    Attributes:
        reference: as the caller wrote it, for messages.
        name: organisation and name.
        revision: a branch, a tag or a commit.
        endpoint: the Hub's address.
        folder: where the cache keeps the repository.
    """

    reference: str
    name: str
    revision: str
    endpoint: str
    folder: Path

    @classmethod
    def of(cls, reference: str) -> _Repo:
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise UsageError(f"{shown(reference)}: expected org/name or org/name@revision")
        from huggingface_hub import constants

        # huggingface_hub itself reads the variable once, when it is imported.
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT
        name, revision = match.groups()
        return cls(
            reference=reference,
            name=name,
            revision=revision or _MAIN,
            endpoint=endpoint,
            folder=Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}",
        )

    @property
    def page(self) -> str:
        """What people open in a browser."""
        return f"{self.endpoint}/{self.name}"

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


@dataclass(frozen=True, slots=True)
class _File:
    """A file as the Hub lists it.

    Attributes:
        nbytes: its size, or 0 if that is not listed.
        digest: of its content, or None if that is not listed, as by some mirrors.
        lfs: whether the digest is SHA-256, as in LFS, or that of a blob in git.
    """

    nbytes: int
    digest: str | None
    lfs: bool

    @classmethod
    def listed(cls, repo: _Repo, sibling: RepoSibling) -> _File:
        lfs = sibling.lfs is not None
        digest = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
        if digest is not None and not (_SHA256 if lfs else _GIT_ID).fullmatch(digest):
            raise FormatError(
                f"{repo.page}: {shown(sibling.rfilename)}: {shown(digest)} is no digest"
            )
        return cls(sibling.size or 0, digest, lfs)

    def digest_of(self, path: Path) -> str:
        """The digest that a file on disk has in place of the listed one."""
        if self.lfs:
            return hash_file(path)
        header = b"blob %d\0" % path.stat().st_size
        return hash_file(path, partial(hashlib.sha1, header, usedforsecurity=False))


class _Share:
    """A file's part in a stage: never more than its size, and all of it in the end."""

    def __init__(self, stage: Stage, nbytes: int) -> None:
        self._stage = stage
        self._left = nbytes

    def advance(self, nbytes: int) -> None:
        """Count bytes that have come; fewer than none if a download begins anew."""
        nbytes = min(nbytes, self._left)
        self._left -= nbytes
        self._stage.advance(nbytes)

    def finish(self) -> None:
        """Count what came unseen, such as a file that the cache had from elsewhere."""
        self.advance(self._left)


class _UnreachableError(Exception):
    """The Hub does not answer, or only that it cannot.

    Attributes:
        what: what happened, for a message.
        step: what to do about it.
    """

    def __init__(self, what: str, step: str) -> None:
        super().__init__(what)
        self.what = what
        self.step = step


def _listing(repo: _Repo) -> tuple[str, dict[str, _File]]:
    """The commit that the revision is now, and that commit's files by name."""
    from huggingface_hub import HfApi, constants, errors

    try:
        info = HfApi(endpoint=repo.endpoint).model_info(
            repo.name,
            revision=repo.revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        files = {file.rfilename: _File.listed(repo, file) for file in info.siblings or ()}
    except errors.OfflineModeIsEnabled as error:
        raise _UnreachableError(
            "HF_HUB_OFFLINE is set", "unset it, or give a local folder"
        ) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code >= 500:
            raise _UnreachableError(
                f"{repo.endpoint} answered {_answer(error)}", "try again later"
            ) from error
        raise _refusal(repo, error) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]
        # Of httpx or httpx2, whichever this version of huggingface_hub builds on.
        raise _UnreachableError(
            f"{repo.endpoint} could not be reached ({_reason(error)})",
            "connect to the network, or give a local folder",
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise HubError(
            f"{repo.reference}: expected {repo.endpoint} to describe the model, found an "
            f"answer that a Hub does not give ({_reason(error)}); check HF_ENDPOINT, and "
            "whether a proxy or a login page stands between"
        ) from error
    if info.sha is None or not _GIT_ID.fullmatch(info.sha):
        raise FormatError(f"{repo.page}: expected a commit, found {shown(str(info.sha))}")
    return info.sha, files


def _cached(repo: _Repo) -> Path | None:
    """The snapshot that the cache holds of the revision, without asking the Hub."""
    commit = repo.revision
    if repo.ref.is_file():
        commit = repo.ref.read_text().strip()
    folder = repo.snapshot(commit)
    return folder if _GIT_ID.fullmatch(commit) and folder.is_dir() else None


def _names(folder: Path) -> list[str]:
    """The files in a folder, as they are named in the repository."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths]


def _remember(repo: _Repo, commit: str) -> None:
    """Note in the cache which commit the revision is, for when the Hub is out of reach.

    huggingface_hub does the same, but only for what it looked up itself. It is done last:
    while files are missing, the commit before may be complete.
    """
    if repo.revision == commit:
        return
    with suppress(OSError):  # a cache that others look after may be read-only
        if repo.ref.is_file() and repo.ref.read_text() == commit:
            return
        repo.ref.parent.mkdir(parents=True, exist_ok=True)
        new = repo.ref.with_name(f".{os.getpid()}.{repo.ref.name}")
        try:
            new.write_text(commit)
            os.replace(new, repo.ref)
        finally:
            new.unlink(missing_ok=True)


def _add(repo: _Repo, commit: str, name: str, file: _File, share: _Share) -> None:
    """Bring a file into the snapshot of a commit, and check it."""
    before = set(os.listdir(repo.blobs)) if repo.blobs.is_dir() else set()
    path = _download(repo, commit, name, share)
    share.finish()
    if file.digest is None:
        return
    blob = path.resolve()
    found = None
    try:
        found = file.digest_of(path)
    finally:
        if found != file.digest:
            # Wrong, or the check was interrupted: the next run must not take it for good.
            path.unlink()
    if found == file.digest:
        return
    if blob.parent == repo.blobs.resolve() and blob.name not in before:
        blob.unlink()
    step = "delete it and run again" if blob.exists() else "it was removed: run again"
    raise IntegrityError(
        f"{blob}: expected {file.digest}, the digest of {shown(name)} in {repo.page}, "
        f"found {found}; {step}"
    )


def _download(repo: _Repo, commit: str, name: str, share: _Share) -> Path:
    """Where the cache keeps the file of a commit, after huggingface_hub put it there."""
    from huggingface_hub import errors, hf_hub_download

    try:
        path = hf_hub_download(
            repo.name,
            name,
            revision=commit,
            cache_dir=repo.folder.parent,
            endpoint=repo.endpoint,
            tqdm_class=_counting(share),
        )
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:  # type: ignore[attr-defined]
        # A local entry that was not found is how it tells of a Hub that did not answer.
        unfound = isinstance(error, errors.LocalEntryNotFoundError)
        cause = error.__cause__ if unfound else error
        if isinstance(cause, errors.HfHubHTTPError):
            raise _refusal(repo, cause) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's
        raise HubError(
            f"{repo.reference}: {shown(name)} did not arrive ({_reason(cause or error)}); "
            "run again: files that arrived before it are kept"
        ) from error
    return Path(path)


def _counting(share: _Share) -> type[tqdm]:
    """What huggingface_hub takes for its progress bar: draws nothing, and counts."""
    from huggingface_hub.utils.tqdm import tqdm

    class Counter(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            share.advance(int(n or 0))

        # Xet counts bytes on the wire as well. Without these it would make a second bar
        # for them, and all would be counted twice.
        def update_transfer(self, n: float | None = 1) -> None:
            pass

        def set_transfer_postfix_str(self, *args: Any, **kwargs: Any) -> None:
            pass

    return Counter


def _refusal(repo: _Repo, error: HfHubHTTPError) -> HubError:
    """What the Hub's answer means for the user."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return HubError(
            f"{repo.reference}: the model is gated; accept its licence on {repo.page}, "
            "then log in: hf auth login"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"{repo.reference}: expected a local folder or a model on {repo.endpoint}, "
            "found neither; correct the name or, if the model is private, log in: "
            "hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            f"{repo.reference}: {repo.page} has no branch, tag or commit "
            f"{shown(repo.revision)}; name another after the @"
        )
    step = "log in: hf auth login"
    if error.response.status_code not in (401, 403):
        step = "try again later"
    return HubError(f"{repo.reference}: {repo.endpoint} answered {_answer(error)}; {step}")


def _answer(error: HfHubHTTPError) -> str:
    """A status, and what the server says about it."""
    response = error.response
    status = f"{response.status_code} {response.reason_phrase}".strip()
    return status + (f" ({shown(error.server_message)})" if error.server_message else "")


def _reason(error: BaseException) -> str:
    """An error of another library in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _some(names: Iterable[str]) -> str:
    """The first of many names."""
    first = [shown(name) for name in islice(names, _NAMES_SHOWN + 1)]
    if len(first) > _NAMES_SHOWN:
        first[-1] = "…"
    return ", ".join(first) or "it has none"
