"""One call of a route: the request, who sends it, and what they may do.

The messages are the Hub's where they are known from reports; those that are guesses say
so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.fakehub.state import Commit, Repo
from tests.fakehub.wire import RefusedError, Request

if TYPE_CHECKING:
    from tests.fakehub.hub import FakeHub
    from tests.fakehub.server import Received

_PULL_ONLY: Final = (
    "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"
)
#: A guess at the words; the Hub says 403.
_READ_ONLY: Final = "Forbidden: you must use a write token to upload to a repository."


@dataclass(frozen=True, kw_only=True)
class Token:
    """Who sends it, and what it allows.

    Attributes:
        orgs: the organisations that the user is a member of; None for all there are.
        role: "write" or "read".
    """

    user: str
    role: str = "write"
    orgs: frozenset[str] | None = None

    def member(self, name: str) -> bool:
        """Whether the user owns that repository, alone or with others."""
        owner = name.partition("/")[0]
        return owner == self.user or self.orgs is None or owner in self.orgs


@dataclass(frozen=True)
class Call:
    """A request as a route takes it."""

    hub: FakeHub
    request: Request
    received: Received

    def json(self) -> Any:
        """What was sent, as JSON."""
        try:
            return json.loads(self.received.all())
        except ValueError:
            raise RefusedError(400, "Invalid JSON") from None

    def lines(self) -> Iterator[Any]:
        """What was sent, as JSON that ends with each line."""
        for line in self.received.all().splitlines():
            if line.strip():
                yield json.loads(line)

    @property
    def token(self) -> Token | None:
        """The sender's token, or None for anybody."""
        given = self.request.headers.get("authorization")
        if given is None:
            return None
        token = self.hub.tokens.get(given.removeprefix("Bearer "))
        if token is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return token

    def known(self) -> Token:
        """The sender's token; without one nobody writes."""
        if (token := self.token) is None:
            raise RefusedError(401, "Invalid username or password.")
        return token

    def repo(self, name: str) -> Repo:
        """A repository that the sender may know of."""
        token = self.token
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not (token and token.member(name))):
            # The Hub does not tell those who have no token whether there is one.
            status = 404 if token else 401
            raise RefusedError(status, "Repository not found", "RepoNotFound")
        return repo

    def at(self, name: str, revision: str) -> tuple[Repo, Commit]:
        """A repository, and a commit in it."""
        repo = self.repo(name)
        commit = repo.resolve(revision)
        if commit is None:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repo, repo.commits[commit]

    def readable(self, name: str) -> None:
        """Refuses those who were not let into a gated repository."""
        repo, token = self.repo(name), self.token
        if repo.gated and not (
            token and (token.member(name) or token.user in repo.granted)
        ):
            status = 403 if token else 401
            message = f"Access to {name} is restricted"
            if token:
                message = (
                    f"Access to model {name} is restricted and you are not in the "
                    f"authorized list. Visit {self.hub.url}/{name} to ask for access."
                )
            raise RefusedError(status, message, "GatedRepo")

    def writable(self, name: str, pull: bool = False) -> Repo:
        """A repository that the sender may change, or at least open pull requests in."""
        repo, token = self.repo(name), self.known()
        if token.role != "write":
            raise RefusedError(403, _READ_ONLY)
        if not pull and not token.member(name):
            raise RefusedError(403, _PULL_ONLY)
        return repo
