"""What commands share whose work others may do: on other machines, or in shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from releasekit.errors import UsageError

if TYPE_CHECKING:
    from releasekit.cli.shell import Shell
    from releasekit.parts.shares import PartResult
    from releasekit.parts.split import Share
    from releasekit.parts.tasks import WorkerReport

_F = TypeVar("_F", bound=Callable[..., Any])


def engine_option(command: _F) -> _F:
    """`--engine`: who does the work."""
    return click.option(
        "--engine",
        default="local",
        show_default=True,
        metavar="local|ray[:ADDRESS]",
        help="Who does the work: this process; or a Ray cluster, all of whose machines "
        "find inputs and OUT under the same paths. --threads and --max-memory are then "
        "those of each part.",
    )(command)


def spread_options(command: _F) -> _F:
    """`--engine`, `--shard` and `--finish`."""
    for option in (
        click.option(
            "--finish",
            is_flag=True,
            help="Once all shares are done: make OUT appear.",
        ),
        click.option(
            "--shard",
            metavar="I/N",
            help="Do the I-th of N shares of the work, as an array job does; on any "
            "machine that finds inputs and OUT under the same paths.",
        ),
    ):
        command = option(command)
    return engine_option(command)


def share_of(
    engine: str, shard: str | None, *, finish: bool, dry_run: bool = False
) -> Share | None:
    """The share that is asked for, if one is; refuses what does not go together."""
    from releasekit.parts.split import Share

    asked = [
        name
        for name, there in (
            (f"--engine {engine}", engine != "local"),
            ("--shard", shard is not None),
            ("--finish", finish),
            ("--dry-run", dry_run),
        )
        if there
    ]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)}: give one of them")
    return Share.parse(shard) if shard is not None else None


def worker_document(workers: Sequence[WorkerReport]) -> list[dict[str, Any]]:
    """What each process did, as JSON has it."""
    return [
        {
            "name": worker.name,
            "parts": worker.parts,
            "nbytes": worker.nbytes,
            "seconds": worker.seconds,
        }
        for worker in workers
    ]


def worker_facts(workers: Sequence[WorkerReport]) -> list[tuple[str, str]]:
    """What each process did, for people."""
    from releasekit.cli import render

    return [
        (
            "worker",
            f"{worker.name}: {worker.parts} parts, {render.size(worker.nbytes)} in "
            f"{worker.seconds:.1f} s",
        )
        for worker in workers
    ]


def share_result(shell: Shell, result: PartResult, *, again: bool = False) -> None:
    """Say what a share made, and what comes next.

    Args:
        shell: says it.
        result: what was made.
        again: the share is to be done once more, since others must come before the rest.
    """
    from releasekit.cli import render
    from releasekit.storage.address import text

    then = "once all shares are done, the same with --finish instead of --shard"
    if again:
        then = "once all shares are done, the same shares again: there is more to do then"
    document = {
        "out": text(result.out),
        "name": result.name,
        "share": str(result.share),
        "parts": list(result.parts),
        "kept": list(result.kept),
        "again": again,
        "nbytes": result.nbytes,
        "seconds": result.seconds,
    }
    pairs = [
        ("share", f"{result.share} of {result.name}, for {text(result.out)}"),
        ("parts", f"{len(result.parts)}, {render.size(result.nbytes)}"),
        ("next", then),
    ]
    if result.kept:
        pairs.insert(2, ("kept", f"{len(result.kept)} parts of an earlier run"))
    shell.result(document, render.facts(pairs))
