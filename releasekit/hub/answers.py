"""What the Hub's refusals and silences mean, and how often to ask again.

huggingface_hub tries some requests again by itself, and others never; it raises its own
errors, those of its HTTP library and Python's. Here each becomes a `Fault`: what happened,
what to do about it, and whether it may pass. Everything asked of the Hub goes through
`persist`, which waits as long as the Hub wants, a bounded time, or else ever longer, and
gives up after a few attempts.

Nothing of a request's headers, and no query of an address, gets into a message: they hold
tokens and signatures.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from releasekit.errors import HubError
from releasekit.hub.address import Address
from releasekit.names import shown

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

Result = TypeVar("Result")

#: How often something is asked before giving up.
ATTEMPTS: Final = 5
#: The same of a host that cannot be reached at all: somebody waits for the answer.
_UNREACHED: Final = 3
#: Seconds before the second attempt; twice as many before each one after it.
FIRST_WAIT: Final = 1.0
#: Seconds to wait at most where the Hub says how long. Its windows are of five minutes.
LONGEST_WAIT: Final = 300.0
#: Seconds without a byte after which a connection is given up.
SILENCE: Final = 60.0

_LOG_IN: Final = "log in: hf auth login"
_LATER: Final = "try again later"
#: Time-outs, too many requests, and the server's own troubles; 52x are those of CDNs.
_PASSING: Final = frozenset((408, 425, 429, 500, 502, 503, 504, *range(520, 525)))
_QUOTA: Final = re.compile(r"storage|quota|limit (reached|exceeded)|exceed", re.IGNORECASE)
_RATE_LIMIT: Final = re.compile(r"r=0;.*\bt=(\d+)")
_QUERY: Final = re.compile(r"\?[^\s'\"<>)]+")
_PASSWORD: Final = re.compile(r"://[^\s/@]+@")
_TOKEN: Final = re.compile(r"\bhf_\w{4,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a request failed.

    Attributes:
        what: what happened.
        step: what to do about it.
        passes: whether the same request may succeed later.
        silent: whether there was no answer, or only that there cannot be one.
        wait: seconds that the Hub asks to wait; None if it does not say.
        status: of its answer; None if there was none.
        missing: what the Hub has not: "model" or "revision"; None if that is not it.
        attempts: how often it is worth asking again at most.
    """

    what: str
    step: str
    passes: bool = False
    silent: bool = False
    wait: float | None = None
    status: int | None = None
    missing: str | None = None
    attempts: int = ATTEMPTS


class FaultError(Exception):
    """A request that failed for good; its `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.fault = fault

    def told(self, address: Address, doing: str = "") -> HubError:
        """The error for the user.

        Args:
            address: what it was about.
            doing: what did not work because of it; by default that is plain.
        """
        what = f"{doing} ({self.fault.what})" if doing else self.fault.what
        return HubError(f"{address.reference}: {what}; {self.fault.step}")


def persist(
    address: Address,
    call: Callable[[], Result],
    *,
    attempts: int = 0,
    sleep: Callable[[float], object] = time.sleep,
) -> Result:
    """The result of `call`, which asks something of the Hub, after some attempts.

    Args:
        address: what it is about.
        call: may be done again as it is.
        attempts: how many; by default `ATTEMPTS`.
        sleep: waits some seconds.

    Raises:
        FaultError: if it fails for good, or has failed too often.
        OSError: the disk's.
    """
    attempts = attempts or ATTEMPTS
    for attempt in range(attempts):
        try:
            with explaining(address):
                return call()
        except FaultError as error:
            wait = pause(error.fault, attempt + 1, min(attempts, error.fault.attempts))
            if wait is None:
                raise
            sleep(wait)
    raise AssertionError("the last attempt raises or returns")


def pause(fault: Fault, failed: int, attempts: int) -> float | None:
    """Seconds to wait before asking again; None if that is not to be done.

    Args:
        fault: of the last attempt.
        failed: how many have failed.
        attempts: how many there are to be at most.
    """
    wait = fault.wait if fault.wait is not None else FIRST_WAIT * 2 ** (failed - 1)
    if not fault.passes or failed >= attempts or wait > LONGEST_WAIT:
        return None
    return wait


@contextmanager
def explaining(address: Address) -> Iterator[None]:
    """Turns what asking the Hub raises into a `FaultError`; the disk's errors pass."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    invalid_url = httpx().InvalidURL
    malformed = (ValueError, TypeError, LookupError, AttributeError)
    try:
        yield
    except (HTTPError, OSError, RuntimeError, invalid_url, *malformed) as error:
        fault = _fault(address, error)
        if fault is None:
            raise
        raise FaultError(fault) from error


def httpx() -> Any:
    """The HTTP library that this huggingface_hub builds on: httpx, or httpx2."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    return importlib.import_module(HTTPError.__module__.partition(".")[0])


@contextmanager
def bounded() -> Iterator[None]:
    """Lets no request of huggingface_hub wait for ever, as its uploads would.

    Its client is one for the process: this is not for several threads at once.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    # Private, but only read: a factory that the user set is to be kept.
    factory = getattr(_http, "_GLOBAL_CLIENT_FACTORY", None)
    if factory is None:
        yield
        return

    def make() -> Any:
        client = factory()
        if client.timeout == httpx().Timeout(None):
            client.timeout = httpx().Timeout(SILENCE)
        return client

    set_client_factory(make)
    try:
        yield
    finally:
        set_client_factory(factory)


def reason(error: BaseException) -> str:
    """An error of another library in one line, without what is secret."""
    text = redacted(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def redacted(text: str) -> str:
    """Text without passwords and queries of addresses, which are signed, and tokens."""
    return _TOKEN.sub("hf_…", _QUERY.sub("?…", _PASSWORD.sub("://", text)))


def _fault(address: Address, error: BaseException) -> Fault | None:
    """What an error means; None if it is the disk's."""
    from huggingface_hub import errors

    # That a transfer failed is told by an error whose cause says why.
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, errors.OfflineModeIsEnabled):
        step = "unset it"
        return Fault(what="HF_HUB_OFFLINE is set", step=step, silent=True)
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(address, error)
    silences = (httpx().TransportError, ConnectionError, TimeoutError)
    nameless = isinstance(error, OSError) and error.errno is None
    if isinstance(error, silences) or nameless or type(error) is RuntimeError:
        # hf_xet's are of these kinds; a scheme or a message that cannot be will not change.
        unreached = (httpx().ConnectError, httpx().ConnectTimeout)
        fixed = (httpx().UnsupportedProtocol, httpx().LocalProtocolError)
        return Fault(
            what=f"{address.site} could not be reached ({reason(error)})",
            step="connect to the network",
            passes=not isinstance(error, fixed),
            silent=True,
            attempts=_UNREACHED if isinstance(error, unreached) else ATTEMPTS,
        )
    if isinstance(error, OSError):
        return None
    return Fault(
        what=f"expected {address.site} to answer as a Hub does, found an answer that "
        f"it does not give ({reason(error)})",
        step="check HF_ENDPOINT, and whether a proxy or a login page stands between",
    )


def _refusal(address: Address, error: HfHubHTTPError) -> Fault:
    """What an answer with a status of 400 or more means."""
    from huggingface_hub import errors

    status = error.response.status_code
    what, step = _words(address, error)
    missing = None
    if isinstance(error, errors.RevisionNotFoundError):
        missing = "revision"
    elif isinstance(error, errors.RepositoryNotFoundError):
        # A gated one is there, though its error is of that kind.
        missing = None if isinstance(error, errors.GatedRepoError) else "model"
    if _is_elsewhere(address, error):
        # Addresses of a CDN are signed for a time, and refused after it: ask for new ones.
        return Fault(
            what=what, step=_LATER, passes=status in _PASSING | {400, 401, 403, 404}
        )
    return Fault(
        what=what,
        step=step,
        passes=status in _PASSING,
        silent=status >= 500,
        wait=_asked_wait(error),
        status=status,
        missing=missing,
    )


def _words(address: Address, error: HfHubHTTPError) -> tuple[str, str]:
    """What a refusal is, and what to do about it."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            "the model is gated",
            f"ask for access and accept its licence on {address.page}, then {_LOG_IN}",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"expected a local folder or a model on {address.site}, found neither",
            f"correct the name or, if the model is private, {_LOG_IN}",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{address.page} has no branch, tag or commit {shown(address.revision)}",
            "name another after the @",
        )
    status = error.response.status_code
    said = redacted(error.server_message or "")
    answer = f"{status} {error.response.reason_phrase}".strip()
    answer = f"{address.site} answered {answer}" + (f" ({shown(said)})" if said else "")
    if status in (402, 403, 413, 507) and _QUOTA.search(said):
        return answer, (
            f"free some storage of {address.owner}, or get more: see "
            f"{address.site}/settings/billing"
        )
    if status == 401:
        return answer, _LOG_IN
    if status == 403:
        return answer, (
            f"log in with a token that may do this in {address.owner}: hf auth login"
        )
    return answer, _LATER


def _is_elsewhere(address: Address, error: HfHubHTTPError) -> bool:
    """Whether not the Hub answered, but another host that it sent us to."""
    found = urlsplit(str(error.response.url)).netloc.rpartition("@")[2]
    return found != urlsplit(address.site).netloc


def _asked_wait(error: HfHubHTTPError) -> float | None:
    """Seconds that the Hub asks to wait.

    Source: Retry-After of RFC 9110, section 10.2.3, in seconds; RateLimit of
    draft-ietf-httpapi-ratelimit-headers-09, which the Hub sends with a 429.
    """
    after = error.response.headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return float(after)
    match = _RATE_LIMIT.search(error.response.headers.get("RateLimit", ""))
    return float(match[1]) + 1 if match else None


def raise_for_status(response: Any) -> None:
    """Raise what huggingface_hub raises for an answer that refuses."""
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    hf_raise_for_status(response)
