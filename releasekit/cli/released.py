"""How `releasekit release` tells what became of a release, or of several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from releasekit.cli import render
from releasekit.cli.exits import FAILED, exit_code
from releasekit.errors import ReleaseKitError

if TYPE_CHECKING:
    from releasekit.releasing.course import ReleaseResult
    from releasekit.releasing.several import Outcome, Several
    from releasekit.releasing.volume import Needs
    from releasekit.releasing.watching import StepResult

#: Steps that tell what there is to know of a release, the first and the last.
_TELLING: Final = ("make", "publish")


def document(result: ReleaseResult) -> dict[str, Any]:
    """What became of a release, as JSON has it."""
    return {
        "file": str(result.path),
        "name": result.file.name,
        "version": result.file.version,
        "kind": result.file.kind,
        "out": str(result.out),
        "repo": result.file.repo,
        "steps": [
            {
                "step": step.name,
                "state": step.state.value,
                "said": step.said,
                "seconds": round(step.seconds, 3),
            }
            for step in result.steps
        ],
        **(_needs_document(result.needs) if result.needs is not None else {}),
    }


def lines(result: ReleaseResult) -> Iterator[str]:
    """What became of a release, for people."""
    file = result.file
    yield from render.facts(
        [("release", f"{file.name} {file.version}, {file.kind}, in {result.out}")]
    )
    rows = [(s.name, s.state.value, _took(s), s.said) for s in result.steps]
    yield from render.table(("step", "state", "time", ""), rows, "llrl")
    if result.needs is not None:
        yield from render.facts(list(_taken(result.needs)))


def document_of_all(several: Several) -> dict[str, Any]:
    """What became of several, as JSON has it."""
    return {
        "releases": [_outcome_document(outcome) for outcome in several.outcomes],
        "together": [[several.outcomes[n].told for n in group] for group in several.groups],
    }


def lines_of_all(several: Several, *, verbose: bool) -> Iterator[str]:
    """What became of several, for people; `verbose` tells of each step."""
    rows = [_row(outcome) for outcome in several.outcomes]
    yield from render.table(("release", "state", "time", ""), rows, "llrl")
    pairs = [
        ("together", ", ".join(several.outcomes[n].told for n in group))
        for group in several.groups
    ]
    for needs in several.needs:
        pairs += _taken(needs)
    yield from render.facts(pairs)
    if verbose:
        for outcome in several.outcomes:
            if outcome.result is not None:
                yield ""
                yield from lines(outcome.result)


def errors_of_all(several: Several) -> Iterator[str]:
    """What speaks against some of several, or has stopped them; a sentence each."""
    wrong = [outcome for outcome in several.outcomes if outcome.error is not None]
    for outcome in wrong:
        words = words_of(outcome.error)
        yield words if words.startswith(f"{outcome.told}:") else f"{outcome.told}: {words}"
    if wrong:
        count = f"{len(wrong)} of {len(several.outcomes)} releases"
        if any(outcome.failed for outcome in wrong):
            yield f"{count} failed: run the same command to go on with them"
        else:
            yield f"{count} cannot be made as they stand; nothing was begun"


def code_of_all(several: Several) -> int:
    """The exit code: of the errors, if it is the same for all."""
    codes = {code_of(one.error) for one in several.outcomes if one.error is not None}
    return codes.pop() if len(codes) == 1 else FAILED if codes else 0


def code_of(error: Exception) -> int:
    """The exit code of an error."""
    return exit_code(error) if isinstance(error, ReleaseKitError) else FAILED


def words_of(error: Exception | None) -> str:
    """An error in words; the system's as the shell tells them."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    found = {"file": str(outcome.path)}
    if outcome.result is not None:
        found = document(outcome.result)
    error = outcome.error
    if error is None:
        return found
    told = {"type": type(error).__name__, "message": words_of(error)}
    return {**found, "error": {**told, "exit_code": code_of(error)}}


def _row(outcome: Outcome) -> tuple[str, str, str, str]:
    """A release in one line."""
    result = outcome.result
    if result is None:
        return outcome.told, "refused", "", words_of(outcome.error)
    title = f"{result.file.name} {result.file.version}"
    if outcome.error is not None:
        state, said = "refused", words_of(outcome.error)
        if outcome.failed is not None:
            state, said = "failed", f"{outcome.failed}: {said}"
        return title, state, _took(*result.steps), said
    states = {step.state.value for step in result.steps}
    todo = [step.name for step in result.steps if step.state.value == "to do"]
    if todo:
        return title, "to do", "", ", ".join(todo)
    telling = [s for s in result.steps if s.name in _TELLING and s.state.value != "idle"]
    state = "done" if "done" in states else "kept"
    return title, state, _took(*result.steps), f"{result.out}: {telling[-1].said}"


def _needs_document(needs: Needs) -> dict[str, Any]:
    """What a release would take, in bytes; null where that is not known."""
    return {
        "disk": {"most": needs.most, "while_made": needs.peak, "free": needs.free},
        "download": {"nbytes": needs.download, "free": needs.cache_free},
    }


def _taken(needs: Needs) -> Iterator[tuple[str, str]]:
    """What a release would take of the disk, and of the network."""
    free = f"{render.size(needs.free)} are free"
    if needs.most is None or needs.peak is None:
        yield "disk", f"not known before it is downloaded; {free}"
    else:
        more = f", {render.size(needs.peak)} while it is made"
        most = f"at most {render.size(needs.most)}{more if needs.peak > needs.most else ''}"
        yield "disk", f"{most}; {free}"
    if needs.download:
        where = "" if needs.shares_disk else f", where {render.size(needs.cache_free)} are"
        yield "download", f"{render.size(needs.download)} into {needs.cache}{where}"


def _took(*steps: StepResult) -> str:
    seconds = sum(step.seconds for step in steps)
    return f"{seconds:.1f} s" if seconds else ""
