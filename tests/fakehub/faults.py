"""What is to go wrong, with which requests, and when."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.fakehub.wire import Answer, Request


@dataclass(kw_only=True)
class Rule:
    """Which requests something happens to.

    Attributes:
        match: a pattern that is searched in `METHOD path?query`.
        skip: how many matching requests pass first.
        times: how many it then strikes; `math.inf` for all.
    """

    match: str = ""
    skip: int = 0
    times: float = 1

    def strikes(self, request: Request) -> bool:
        """Whether this request is struck; the rule counts it. Hold the Hub's lock."""
        if self.times <= 0 or not re.search(self.match, str(request)):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(kw_only=True)
class Fault(Rule):
    """What goes wrong. Of several that match a request, the first strikes.

    Attributes:
        call: is run before the request is served, say for somebody else to commit.
        before: reset the connection, with nothing read, done or answered.
        stall: wait for so many seconds before the answer, or at `at` in its body.
        status: answer with this in place of serving the request, and with `body` as JSON
            or, if bytes, as it is.
        headers: more headers of the answer, such as Retry-After.
        after: serve the request, then lose the answer: another `status` comes in its
            place, or a reset.
        cut: end the connection after so many bytes of the content that is sent, or, of a
            request with a content, received.
        reset: end it as a crash does, rather than in good order.
        flip: send the content with the last bit of this byte wrong.
        rate: send and receive so many bytes in a second at most.
    """

    status: int | None = None
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    flip: int | None = None
    cut: int | None = None
    reset: bool = False
    before: bool = False
    after: bool = False
    stall: float = 0
    at: int | None = None
    rate: int | None = None
    call: Callable[[Request], object] | None = None

    def answer(self) -> Answer:
        """The answer in place of the true one."""
        assert self.status is not None
        if isinstance(self.body, bytes):
            answer = Answer(self.status, self.body, {"Content-Type": "application/json"})
        elif self.body is None:
            answer = Answer(self.status)
        else:
            answer = Answer.of(self.body, self.status)
        return answer


@dataclass(kw_only=True)
class Rewriting(Rule):
    """What an answer is turned into: `how` changes it in place or returns another."""

    how: Callable[[Request, Answer], Answer | None]
    times: float = float("inf")
