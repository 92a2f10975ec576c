"""`releasekit preflight`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render, signatures
from releasekit.cli.exits import EPILOG, exit_code
from releasekit.cli.shell import (
    Shell,
    common_options,
    recipe_option,
    work_options,
)
from releasekit.cli.signatures import check_options, downgrade_option, policy_of

if TYPE_CHECKING:
    from releasekit.delta.preflight import Preflight


@click.command("preflight", epilog=EPILOG)
@click.option("--base", required=True, metavar="BASE", help="Base model.")
@click.option(
    "--delta",
    required=True,
    multiple=True,
    metavar="DELTA",
    help="Release. Give it again for each of several that build on each other.",
)
@check_options
@downgrade_option
@recipe_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder to be made.")
@work_options
@common_options
@click.pass_obj
def command(
    shell: Shell, /, base: str, delta: tuple[str, ...], out: Path | None, **work: Any
) -> int:
    """Check in seconds whether a base and a delta will make the model here.

    Reads headers and a few tensors, and writes nothing. All that is wrong is listed, each
    with what to do; the exit code is that of the first. BASE and DELTA are paths, or
    org/name@revision on the Hugging Face Hub. Free disk space is checked if OUT is given.

    \b
    Example:
      releasekit preflight --base llama-65b --delta my-tune-delta --out my-tune
    """
    from releasekit import preflight

    shell.resume_hint = "nothing was written"
    policy = policy_of(shell, work)
    with shell.progress() as progress:
        found = preflight(base, delta, out=out, policy=policy, progress=progress, **work)
    document = {
        "base": found.base,
        "delta": found.delta,
        "name": found.name,
        "ok": found.ok,
        "findings": [
            {"kind": f.kind, "message": f.message, "fatal": f.fatal} for f in found.findings
        ],
        "memory_nbytes": found.memory_nbytes,
        "write_nbytes": found.write_nbytes,
        "free_nbytes": found.free_nbytes,
        "download_nbytes": found.download_nbytes,
        "seconds": found.seconds,
        "signature": found.authenticity and signatures.document(found.authenticity),
    }
    faults = [finding for finding in found.findings if finding.fatal]
    for fault in faults:
        shell.fault(type(fault.error()).__name__, fault.message)
    shell.result(document, render.facts(list(_pairs(shell, found))))
    return exit_code(faults[0].error()) if faults else 0


def _pairs(shell: Shell, found: Preflight) -> Iterator[tuple[str, str]]:
    for finding in found.findings:
        if not finding.fatal:
            yield "note", finding.message
    if found.ok:
        yield "ready", f"{found.name} can be rebuilt from {found.base}"
    if found.memory_nbytes is not None:
        yield "memory", f"at most {render.size(found.memory_nbytes)}"
    if found.write_nbytes is not None:
        free = (
            "" if found.free_nbytes is None else f", {render.size(found.free_nbytes)} free"
        )
        yield "disk", f"{render.size(found.write_nbytes)} to write{free}"
    if found.download_nbytes:
        yield "download", f"{render.size(found.download_nbytes)} from the Hub"
    if found.authenticity is not None:
        yield "signature", found.authenticity.text
    if shell.verbose:
        yield "took", f"{found.seconds:.2f} s"
