"""`releasekit convert`."""

from __future__ import annotations

from pathlib import Path

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, Size, common_options, memory_options


@click.command("convert", epilog=EPILOG)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["float16", "bfloat16", "float32", "smallest"]),
    help="Round floats to this dtype: to nearest, ties to even; or, without rounding any, "
    "to the smallest that holds every value. By default none changes.",
)
@click.option(
    "--shard-size",
    type=Size(),
    default="5GB",
    show_default=True,
    help="Most bytes of tensors in a file that holds more than one.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@memory_options
@common_options
@click.pass_obj
def command(
    shell: Shell,
    source: Path,
    out: Path,
    dtype: str | None,
    shard_size: int,
    force: bool,
    threads: int | None,
    max_memory: int,
) -> None:
    """Write any model that can be read as sharded safetensors with their digests.

    IN is safetensors, PyTorch's .bin, .pt or .pth, Meta's consolidated.NN.pth with
    params.json (merged, with Hugging Face's names), or org/name@revision on the Hugging
    Face Hub. Values stay as they are, bit for bit, unless --dtype is given. Files beside
    the weights are copied.

    Some models take twice the space that their values need: floats of 32 bits, all of
    which are bfloat16 numbers. --dtype smallest writes floats of each dtype in the
    smallest that holds all of them, bit for bit, and leaves them as they are where there
    is none. Without --dtype, a note says if that would help.

    \b
    Examples:
      releasekit convert LLaMA/65B llama-65b
      releasekit convert old-model new-model --dtype bfloat16 --shard-size 2GB
      releasekit convert fp32-model same-values --dtype smallest
    """
    from releasekit import convert
    from releasekit.statistics.document import narrowing_document

    shell.note_compiling()
    shell.resume_hint = (
        f"{out} was not made; run the same command to go on, finished files are kept in "
        f"{out}.partial"
    )
    with shell.progress() as progress:
        made = convert(
            source,
            out,
            dtype=dtype,
            shard_nbytes=shard_size,
            force=force,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
    document = {
        "out": str(made.out),
        "container": made.kind,
        "identity": made.identity,
        "tensors": made.tensors,
        "nbytes": made.nbytes,
        "files": made.files,
        "dtype": made.dtype,
        "narrower": [narrowing_document(found) for found in made.narrower],
        "rounded": made.rounded,
        "overflowed": made.overflowed,
        "left_out": list(made.left_out),
        "notes": list(made.notes),
        "kept": list(made.kept),
        "seconds": made.seconds,
    }
    pairs = [
        ("model", f"{made.out}, from {made.kind}"),
        ("tensors", str(made.tensors)),
        ("files", f"{len(made.files)}, {render.size(made.nbytes)}, listed in SHA256SUMS"),
        ("identity", made.identity),
    ]
    if dtype == "smallest":
        same = "no value changed, bit for bit"
        pairs.append(("dtype", f"{made.dtype}: {same}" if made.dtype else "unchanged"))
    elif dtype is not None:
        rounded = f"{made.rounded:,} values to the nearest {dtype}, ties to even"
        if made.overflowed:
            rounded += f"; {made.overflowed:,} were too large, and are infinite now"
        if made.kept:
            rounded += f"; not counted in {len(made.kept)} kept files"
        pairs.append(("rounded", rounded))
    pairs += [("note", note) for note in made.notes]
    pairs += [
        ("note", f"{found.describe()} `--dtype smallest` does that.")
        for found in made.narrower
    ]
    if made.left_out:
        pairs.append(("left out", ", ".join(made.left_out)))
    if made.kept:
        pairs.append(("kept", f"{len(made.kept)} files of an earlier run"))
    if shell.verbose:
        pairs += [(digest, name) for name, digest in made.files.items()]
    shell.result(document, render.facts(pairs))
