"""How a Hub misbehaves: by faults on the way, and by answers other than the truth.

Rules say which requests are struck; tests write the lies.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.fakehub.faults import Fault, Rewriting
from tests.fakehub.wire import Answer, Request

#: What tells of several files.
_LISTINGS: Final = (
    r"^GET /api/models/[^/?]+/[^/?]+(/revision/[^/?]+|/tree/[^?]+)?(\?|$)"
    r"|^POST /api/models/[^?]+/paths-info/"
)


class Misbehaviour:
    """What was asked for, and what is to go wrong.

    Attributes:
        requests: all so far, in order.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.rewritings: list[Rewriting] = []
        self._expired = {"up": 0.0, "down": 0.0}

    # What was asked for.

    def asked(self, pattern: str) -> list[str]:
        """The requests so far, as `METHOD path`, in which the pattern is found."""
        return [str(r) for r in self.requests if re.search(pattern, str(r))]

    def leaked(self) -> list[str]:
        """The requests that took a token to where none belongs."""
        return [str(r) for r in self.requests if r.on_cdn and "authorization" in r.headers]

    # What goes wrong.

    def fault(self, **what: Any) -> Fault:
        """Lets something go wrong: see `Fault`."""
        fault = Fault(**what)
        with self.lock:
            self.faults.append(fault)
        return fault

    def rewrite(
        self,
        match: str,
        how: Callable[[Request, Answer], Answer | None],
        *,
        skip: int = 0,
        times: float = math.inf,
    ) -> None:
        """Has answers to matching requests changed before they are sent."""
        rewriting = Rewriting(match=match, how=how, skip=skip, times=times)
        with self.lock:
            self.rewritings.append(rewriting)

    def listing(
        self,
        how: Callable[[list[dict[str, Any]]], list[dict[str, Any]] | None],
        match: str = "",
        **rule: Any,
    ) -> None:
        """Has what is told of files changed: a model's siblings, trees and paths-info.

        Args:
            how: changes the entries in place or returns others; see `path_of`.
            match: as with `rewrite`; "/tree/" are the trees alone.
            rule: `skip` and `times`, as with `rewrite`.
        """

        def changed(request: Request, answer: Answer) -> None:
            told = answer.json
            if answer.status != 200 or (isinstance(told, dict) and "siblings" not in told):
                return
            entries = told["siblings"] if isinstance(told, dict) else told
            others = how(entries)
            entries = entries if others is None else others
            answer.json = (
                told | {"siblings": entries} if isinstance(told, dict) else entries
            )

        self.rewrite(rf"^(?=.*(?:{match}))(?:{_LISTINGS})", changed, **rule)

    def expire_uploads(self, count: float = math.inf) -> None:
        """Makes so many of the next upload addresses expired when they are handed out."""
        self._expired["up"] = count

    def expire_downloads(self, count: float = math.inf) -> None:
        """Makes so many of the next download addresses expired when handed out."""
        self._expired["down"] = count

    # For the server.

    def struck(self, request: Request) -> Fault | None:
        """Records a request; the fault that strikes it is used up."""
        with self.lock:
            self.requests.append(request)
            return next((fault for fault in self.faults if fault.strikes(request)), None)

    def recorded(self, request: Request) -> None:
        """Records a request again, with what was sent."""
        with self.lock:
            for index in range(len(self.requests) - 1, -1, -1):
                if self.requests[index].headers is request.headers:
                    self.requests[index] = request
                    return

    def rewritten(self, request: Request, answer: Answer) -> Answer:
        with self.lock:
            hows = [each.how for each in self.rewritings if each.strikes(request)]
        for how in hows:
            answer = how(request, answer) or answer
        return answer

    def expires(self, way: str) -> bool:
        """Whether the next address is to be expired; counts it."""
        with self.lock:
            self._expired[way] -= (expired := self._expired[way] > 0)
            return expired


def path_of(entry: Mapping[str, Any]) -> str:
    """The file that an entry of a listing is about."""
    path: str = entry.get("path") or entry["rfilename"]
    return path
