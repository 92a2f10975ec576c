"""`releasekit identify`."""

from __future__ import annotations

from pathlib import Path

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, common_options


@click.command("identify", epilog=EPILOG)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--delta",
    "deltas",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Say whether this release knows it. May be repeated.",
)
@click.option("--threads", type=click.IntRange(1), help="By default one a processor.")
@common_options
@click.pass_obj
def command(
    shell: Shell, path: Path, deltas: tuple[Path, ...], threads: int | None
) -> None:
    """Print the identity of a model: a digest of its tensors, whatever they are stored in.

    The same model has the same identity as one safetensors file, as shards, as PyTorch's
    .bin files, or as Meta's consolidated.NN.pth. Reads all of it.

    \b
    Examples:
      releasekit identify llama-65b
      releasekit identify llama-65b --delta my-tune-delta
    """
    from releasekit import identify

    with shell.progress() as progress:
        found = identify(path, deltas=deltas, threads=threads, progress=progress)
    document = {
        "path": str(found.path),
        "container": found.container,
        "identity": found.identity,
        "without_buffers": found.without_buffers,
        "tensors": found.tensors,
        "nbytes": found.nbytes,
        "matches": [
            {"release": match.release, "role": match.role, "delta": str(match.delta)}
            for match in found.matches
        ],
        "seconds": found.seconds,
    }
    pairs = [
        ("identity", found.identity),
        ("model", f"{found.path}, {found.container}"),
        ("tensors", f"{found.tensors}, {render.size(found.nbytes)}"),
    ]
    if found.without_buffers is not None:
        text = f"{found.without_buffers}, without the inv_freq buffers"
        pairs.append(("or", text))
    pairs += [("known", f"the {m.role} of {m.release}") for m in found.matches]
    if found.asked and not found.matches:
        pairs.append(("unknown", f"to {', '.join(found.asked)}"))
    shell.result(document, render.facts(pairs))
