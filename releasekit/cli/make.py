"""`releasekit make-delta`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, Size, common_options, work_options


@click.command("make-delta", epilog=EPILOG)
@click.option("--base", required=True, type=click.Path(path_type=Path), help="Base model.")
@click.option(
    "--target", required=True, type=click.Path(path_type=Path), help="Fine-tuned model."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option("--name", help="Name of the release; by default the target folder's.")
@click.option(
    "--shard-size",
    type=Size(),
    default="2GB",
    show_default=True,
    help="Close a payload file at this size.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out files of the target folder, e.g. '*.bin'. May be repeated.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@work_options
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    base: Path,
    target: Path,
    out: Path,
    name: str | None,
    shard_size: int,
    exclude: tuple[str, ...],
    force: bool,
    **work: Any,
) -> None:
    """Release a fine-tuned model as its difference from a base.

    BASE and TARGET are safetensors models: a folder, an index, or a single file. OUT
    becomes a folder that rebuilds every file of TARGET byte for byte, for whoever holds
    BASE. The round trip is proved before OUT appears.

    \b
    Example:
      releasekit make-delta --base llama-65b --target my-tune --out my-tune-delta
    """
    from releasekit import make_delta

    shell.resume_hint = (
        f"{out} was not made; run the same command to go on, finished tensors are kept in "
        f"{out}.partial"
    )
    shell.note_compiling()
    with shell.progress() as progress:
        made = make_delta(
            base,
            target,
            out,
            name=name,
            shard_nbytes=shard_size,
            exclude=exclude,
            force=force,
            progress=progress,
            **work,
        )
    document = {
        "out": str(made.out),
        "name": made.name,
        "base_identity": made.base_identity,
        "target_identity": made.target_identity,
        "operations": made.operations,
        "full_nbytes": made.full_nbytes,
        "published_nbytes": made.published_nbytes,
        "ratio": made.ratio,
        "unchanged": made.unchanged,
        "kept": made.kept,
        "excluded": list(made.excluded),
        "device": made.device,
        "seconds": made.seconds,
    }
    pairs = [
        ("release", f"{made.name} in {made.out}"),
        ("tensors", render.operations(made.operations)),
        ("full size", render.size(made.full_nbytes)),
        ("published", f"{render.size(made.published_nbytes)}, {render.share(made.ratio)}"),
        ("unchanged", f"{render.share(made.unchanged)} of the elements"),
        ("base", made.base_identity),
        ("rebuilds", f"{made.target_identity} (proved)"),
        ("time", f"{made.seconds:.1f} s"),
    ]
    if made.kept:
        pairs.append(("kept", f"{made.kept} tensors of an earlier run"))
    if made.excluded:
        pairs.append(("left out", ", ".join(made.excluded)))
    if shell.verbose:
        pairs.append(("device", made.device))
        pairs += [(op, name) for name, op in made.tensors.items() if op != "delta"]
    shell.result(document, render.facts(pairs))
