"""A model's repository on the Hub, to be written to: what a release is published with.

Every call may be done again after it failed, whether or not it took effect, since its
answer may have been lost: each looks at what is there before it asks, or after it was
refused. The client itself never repeats a commit.

Contents go up file by file, and are of no effect until one commit names them all. What the
Hub has already it does not ask for again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from io import BufferedReader, FileIO
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from releasekit.errors import FormatError, HubError, IntegrityError
from releasekit.hub import answers
from releasekit.hub.address import Address
from releasekit.hub.answers import FaultError, explaining, persist
from releasekit.hub.listing import Listing, git_digest, list_files
from releasekit.hub.transfer import Source
from releasekit.names import shown

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

#: Bytes from which on a file goes up by itself, and is not read into memory.
_LARGE: Final = 1 << 20
#: What the client says when it is given a file, rather than a path, on purpose.
_FALLING_BACK: Final = "Falling back to HTTP upload"


@dataclass(frozen=True, kw_only=True)
class Local:
    """A file to publish.

    Attributes:
        path: where it is.
        nbytes: its size.
        sha256: of its content.
    """

    path: Path
    nbytes: int
    sha256: str

    @cached_property
    def git(self) -> str:
        """What git calls its content; each listing that it is held against asks for it."""
        return git_digest(self.path)


def is_there(local: Local, name: str, listing: Listing | None) -> bool:
    """Whether a listing has this very file under this name."""
    file = listing.files.get(name) if listing is not None else None
    if file is None or file.digest is None:
        return False
    return file.digest == (local.sha256 if file.lfs else local.git)


class Repository:
    """A repository, as whoever is logged in may write to it.

    Attributes:
        address: its branch.
    """

    def __init__(self, address: Address, *, xet: bool = True) -> None:
        """Prepare; asks nothing.

        Args:
            address: the branch to publish to.
            xet: whether to upload by Xet, where that is installed.
        """
        self.address = address
        self._xet = xet
        self._operations: dict[str, CommitOperationAdd] = {}

    @cached_property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.address.endpoint, library_name="releasekit")

    def require_login(self) -> None:
        """Refuse to go on without a token; HubError."""
        from huggingface_hub import get_token

        if get_token() is None:
            raise HubError(
                f"{self.address.reference}: publishing takes a token that may write, and "
                "none is known: log in: hf auth login (or set HF_TOKEN)"
            )

    def listing(self, revision: str | None = None) -> Listing | None:
        """What a revision holds, by default the branch; None if there is none such.

        Raises:
            HubError: if the Hub refuses, or cannot be reached.
        """
        address = self.address.at(revision) if revision else self.address
        try:
            return list_files(address)
        except FaultError as error:
            if error.fault.missing is not None:
                return None
            raise error.told(self.address) from error

    def content(self, listing: Listing, name: str, limit: int) -> bytes:
        """A small file of a commit, as the Hub has it.

        Raises:
            FormatError: if it has more than `limit` bytes, or no size is listed.
            HubError: if it cannot be had.
        """
        nbytes = listing.files[name].nbytes
        if nbytes is None or nbytes > limit:
            raise FormatError(
                f"{self.address.page}: {name}: expected at most {limit} bytes, found "
                f"{nbytes}"
            )
        source = Source(
            address=self.address,
            commit=listing.commit,
            name=name,
            nbytes=nbytes,
            stop=threading.Event(),
        )
        try:
            return source.read(0, nbytes) if nbytes else b""
        except FaultError as error:
            raise error.told(self.address, f"{shown(name)} could not be read") from error

    def check_card(self, document: str) -> None:
        """Have the Hub check a model card, as it will when it is committed.

        Raises:
            FormatError: with what the Hub says, if it refuses the card.
            HubError: if it cannot be asked.
        """
        from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

        def ask() -> list[str]:
            response = get_session().post(
                f"{self.address.endpoint}/api/validate-yaml",
                json={"content": document, "repoType": "model"},
                headers=build_hf_headers(library_name="releasekit"),
                timeout=answers.SILENCE,
            )
            if response.status_code == 400:
                return [str(one.get("message")) for one in response.json()["errors"]]
            answers.raise_for_status(response)
            return []

        if wrong := self._persist(ask, "the card could not be checked"):
            raise FormatError(
                f"README.md: {self.address.site} refuses it: {shown('; '.join(wrong))}"
            )

    def create(self) -> None:
        """Make the repository, for those of its owner alone; done if it is there."""
        name = self.address.name

        def ask() -> None:
            self._api.create_repo(name, private=True, exist_ok=True, repo_type="model")

        self._persist(ask, f"{name} could not be made")

    def branch(self, start: str) -> None:
        """Make the branch, from a commit; done if it is there."""

        def ask() -> None:
            self._api.create_branch(
                self.address.name,
                branch=self.address.revision,
                revision=start,
                exist_ok=True,
            )

        self._persist(ask, f"the branch {shown(self.address.revision)} could not be made")

    def gate(self, how: str) -> None:
        """Have the Hub ask who downloads to agree first: "auto" or "manual"."""

        def ask() -> None:
            gated: Any = how
            self._api.update_repo_settings(self.address.name, gated=gated)

        self._persist(ask, "access could not be gated")

    def show(self, *, public: bool) -> None:
        """Let everybody see the repository, or only those of its owner."""

        def ask() -> None:
            self._api.update_repo_settings(self.address.name, private=not public)

        self._persist(ask, f"it could not be made {'public' if public else 'private'}")

    def upload(
        self,
        files: Mapping[str, Local],
        advance: Callable[[int], None],
        *,
        propose: bool = False,
    ) -> None:
        """Send contents, as far as the Hub has not got them.

        Args:
            files: by their paths in the repository.
            advance: told how many more bytes are there.
            propose: whether they are for a pull request, which anybody may make.

        Raises:
            HubError: if the Hub refuses, or the connection fails too often.
            IntegrityError: if a file is no longer what it was.
            OSError: the disk's.
        """
        large = {n: f for n, f in files.items() if f.nbytes >= _LARGE}
        small = {n: f for n, f in files.items() if f.nbytes < _LARGE}
        for name, file in large.items():
            self._send({name: file}, advance, propose)
        if small:
            self._send(small, advance, propose)

    def _send(
        self, files: Mapping[str, Local], advance: Callable[[int], None], propose: bool
    ) -> None:
        """Send some contents at once."""
        counts: dict[str, int] = dict.fromkeys(files, 0)

        def count(name: str, nbytes: int) -> None:
            """Never fewer than before: what is sent again was counted."""
            if nbytes > counts[name]:
                advance(nbytes - counts[name])
                counts[name] = nbytes

        def ask() -> dict[str, CommitOperationAdd]:
            with self._additions(files, count) as additions:
                self._api.preupload_lfs_files(
                    self.address.name,
                    additions.values(),
                    revision=self.address.revision,
                    create_pr=propose,
                    gitignore_content="",  # else what it matches would be left out
                )
            return additions

        doing = f"{shown(next(iter(files)))} could not be uploaded"
        with _quietly():
            sent = self._persist(ask, doing)
        for name, file in files.items():
            found = sent[name].upload_info.sha256.hex()
            if found != file.sha256:
                raise IntegrityError(
                    f"{file.path}: expected sha256 {file.sha256}, as it was checked, found "
                    f"{found}: it changed meanwhile; run again once nothing writes to it"
                )
            count(name, file.nbytes)
        self._operations |= sent

    @contextmanager
    def _additions(
        self, files: Mapping[str, Local], count: Callable[[str, int], None]
    ) -> Iterator[dict[str, CommitOperationAdd]]:
        """What the client takes for files to add."""
        from huggingface_hub import CommitOperationAdd, constants

        by_xet = self._xet and not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet")
        opened: dict[str, _Counted] = {}
        additions: dict[str, CommitOperationAdd] = {}
        try:
            for name, file in files.items():
                content: Any = str(file.path)
                if file.nbytes >= _LARGE and not by_xet:
                    content = opened[name] = _Counted(file.path)
                additions[name] = CommitOperationAdd(name, content)
                if isinstance(content, _Counted):
                    content.tell_to(partial(count, name))
            yield additions
        finally:
            for name, one in opened.items():
                one.close()
                # Not in LFS: the client reads it when it commits.
                if name in additions and additions[name].path_or_fileobj is one:
                    additions[name].path_or_fileobj = str(files[name].path)

    def commit(
        self,
        parent: str,
        remove: Sequence[str],
        message: tuple[str, str],
        holds: Callable[[Listing], bool],
    ) -> str:
        """Make one commit of all that was uploaded, on top of another.

        Args:
            parent: the commit that the branch was looked at.
            remove: files that are not to stay.
            message: its first line, and the rest.
            holds: whether a commit has what this one is to have.

        Returns:
            The commit.

        Raises:
            HubError: if the Hub refuses, or somebody else has committed meanwhile.
        """
        operations = self._all_operations(remove)

        def ask() -> str:
            with _quietly(), explaining(self.address):
                info = self._api.create_commit(
                    self.address.name,
                    operations,
                    commit_message=message[0],
                    commit_description=message[1],
                    revision=self.address.revision,
                    parent_commit=parent,
                )
            return str(info.oid)

        for attempt in range(answers.ATTEMPTS):
            try:
                return ask()
            except FaultError as error:
                # It may have landed, and its answer been lost.
                head = self.listing()
                if head is not None and head.commit != parent:
                    if holds(head):
                        return head.commit
                    raise HubError(
                        f"{self.address.reference}: somebody else made commit "
                        f"{head.commit} meanwhile; look at {self.address.page}/commits/"
                        f"{self.address.revision}, and run again: what was uploaded is kept"
                    ) from error
                self._again(error, attempt, "the commit was not made")
        raise AssertionError("the last attempt raises or returns")

    def propose(
        self,
        parent: str,
        remove: Sequence[str],
        message: tuple[str, str],
        holds: Callable[[Listing], bool],
    ) -> tuple[str, str]:
        """Make one pull request of all that was uploaded, on top of a commit.

        One of the same title that holds the same is taken for this one: its answer was
        lost.

        Returns:
            The commit, and the revision that is the pull request's: `refs/pr/N`.

        Raises:
            HubError: if the Hub refuses.
        """
        operations = self._all_operations(remove)
        for attempt in range(answers.ATTEMPTS):
            try:
                if (found := self.proposed(message[0], holds)) is not None:
                    return found
                with _quietly(), explaining(self.address):
                    info = self._api.create_commit(
                        self.address.name,
                        operations,
                        commit_message=message[0],
                        commit_description=message[1],
                        revision=self.address.revision,
                        parent_commit=parent,
                        create_pr=True,
                    )
                return str(info.oid), str(info.pr_revision)
            except FaultError as error:
                self._again(error, attempt, "the pull request was not made")
        raise AssertionError("the last attempt raises or returns")

    def proposed(
        self, title: str, holds: Callable[[Listing], bool]
    ) -> tuple[str, str] | None:
        """An open pull request of this title that holds this, as commit and revision."""

        def ask() -> list[str]:
            return [
                str(found.git_reference)
                for found in self._api.get_repo_discussions(
                    self.address.name,
                    discussion_type="pull_request",
                    discussion_status="open",
                )
                if found.title == title
            ]

        for reference in self._persist(ask, "pull requests could not be listed"):
            listing = self.listing(reference)
            if listing is not None and holds(listing):
                return listing.commit, reference
        return None

    def tag(self, tag: str, commit: str, message: str) -> None:
        """Give a commit a name for good.

        Raises:
            HubError: if the Hub refuses, or the name is another commit's.
        """

        def ask() -> None:
            self._api.create_tag(
                self.address.name, tag=tag, tag_message=message, revision=commit
            )

        for attempt in range(answers.ATTEMPTS):
            try:
                with explaining(self.address):
                    return ask()
            except FaultError as error:
                there = self.listing(tag)
                if there is not None and there.commit == commit:
                    return None
                if there is not None:
                    raise HubError(
                        f"{self.address.reference}: tag {tag} is at commit "
                        f"{there.commit}, and does not move; make a new version"
                    ) from error
                self._again(error, attempt, f"tag {tag} was not made")
        raise AssertionError("the last attempt raises or returns")

    def _all_operations(
        self, remove: Sequence[str]
    ) -> list[CommitOperationAdd | CommitOperationDelete]:
        from huggingface_hub import CommitOperationDelete

        gone = [CommitOperationDelete(name, is_folder=False) for name in remove]
        return [*gone, *self._operations.values()]

    def _again(self, error: FaultError, attempt: int, doing: str) -> None:
        """Wait for another attempt, or raise if there is to be none."""
        fault = error.fault
        # Before a commit the client has the card checked again, and takes what a server
        # in trouble says to that for a verdict.
        if isinstance(error.__cause__, JSONDecodeError):
            fault = replace(fault, passes=True)
        wait = answers.pause(fault, attempt + 1, answers.ATTEMPTS)
        if wait is None:
            raise error.told(self.address, doing) from error
        time.sleep(wait)

    def _persist(self, ask: Callable[[], answers.Result], doing: str) -> answers.Result:
        try:
            return persist(self.address, ask)
        except FaultError as error:
            raise error.told(self.address, doing) from error


class _Counted(BufferedReader):
    """A file that tells how far it has been read."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self._tell: Callable[[int], None] = lambda nbytes: None

    def tell_to(self, tell: Callable[[int], None]) -> None:
        """Call `tell` with the position after each read from now on."""
        self._tell = tell

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and tell."""
        data = super().read(size)
        self._tell(self.tell())
        return data


@contextmanager
def _quietly() -> Iterator[None]:
    """Without huggingface_hub's own progress bars, and without one remark of it."""
    import warnings

    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    def passes(record: logging.LogRecord) -> bool:
        return _FALLING_BACK not in record.getMessage()

    logger = logging.getLogger("huggingface_hub._commit_api")
    shown_before = not are_progress_bars_disabled()
    logger.addFilter(passes)
    if shown_before:
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            # On metadata of the card, of which `check_card` has asked already; and on how
            # the client calls its HTTP library.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.removeFilter(passes)
        if shown_before:
            enable_progress_bars()
