"""`releasekit apply-delta`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, common_options, work_options


@click.command("apply-delta", epilog=EPILOG)
@click.option("--base", required=True, type=click.Path(path_type=Path), help="Base model.")
@click.option("--delta", required=True, type=click.Path(path_type=Path), help="Release.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option("--dry-run", is_flag=True, help="Check, and say what would be done.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@work_options
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    base: Path,
    delta: Path,
    out: Path,
    dry_run: bool,
    force: bool,
    **work: Any,
) -> None:
    """Rebuild a released model from its base: the publisher's files, byte for byte.

    BASE must hold the same tensors as the base that the release was made with, in any
    sharding. OUT appears once every file in it has the publisher's digest.

    \b
    Example:
      releasekit apply-delta --base llama-65b --delta my-tune-delta --out my-tune
    """
    if dry_run:
        _dry_run(shell, base, delta, out, force=force, **work)
        return
    from releasekit import apply_delta

    shell.resume_hint = (
        f"{out} was not made; run the same command to go on, finished files are kept in "
        f"{out}.partial"
    )
    shell.note_compiling()
    with shell.progress() as progress:
        result = apply_delta(base, delta, out, force=force, progress=progress, **work)
    document = {
        "out": str(result.out),
        "name": result.name,
        "identity": result.identity,
        "nbytes": result.nbytes,
        "files": result.files,
        "kept": list(result.kept),
        "device": result.device,
    }
    pairs = [
        ("model", f"{result.name} in {result.out}"),
        ("files", f"{len(result.files)}, {render.size(result.nbytes)}"),
        ("identity", f"{result.identity} (every digest as published)"),
    ]
    if result.kept:
        pairs.append(("kept", f"{len(result.kept)} files of an earlier run"))
    if shell.verbose:
        pairs.append(("device", result.device))
        pairs += [(digest, name) for name, digest in result.files.items()]
    shell.result(document, render.facts(pairs))


def _dry_run(shell: Shell, base: Path, delta: Path, out: Path, **work: Any) -> None:
    from releasekit import plan_apply

    plan = plan_apply(base, delta, out, **work)
    document = {
        "out": str(out),
        "files": plan.files,
        "base_nbytes": plan.base_nbytes,
        "delta_nbytes": plan.delta_nbytes,
        "write_nbytes": plan.write_nbytes,
        "memory_nbytes": plan.memory_nbytes,
        "threads": plan.threads,
        "device": plan.device,
        "free_nbytes": plan.free_nbytes,
    }
    pairs = [
        (
            "would write",
            f"{len(plan.files)} files, {render.size(plan.write_nbytes)}, {out}",
        ),
        ("would read", f"{render.size(plan.base_nbytes)} of the base"),
        ("", f"{render.size(plan.delta_nbytes)} of the release"),
        ("disk", f"{render.size(plan.free_nbytes)} free"),
        ("memory", f"at most {render.size(plan.memory_nbytes)}"),
        ("threads", str(plan.threads)),
        ("device", plan.device),
    ]
    if shell.verbose:
        pairs += [(render.size(nbytes), name) for name, nbytes in plan.files.items()]
    shell.result(document, render.facts(pairs))
