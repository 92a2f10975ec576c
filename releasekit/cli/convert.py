"""`releasekit convert`."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, Size, common_options, memory_options
from releasekit.cli.spreading import (
    share_of,
    share_result,
    spread_options,
    worker_document,
    worker_facts,
)

if TYPE_CHECKING:
    from releasekit.conversion import ConvertResult


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
@spread_options
@memory_options
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    source: Path,
    out: Path,
    dtype: str | None,
    shard_size: int,
    engine: str,
    shard: str | None,
    finish: bool,
    **work: Any,
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

    With --engine ray, the files of OUT are written by the machines of a Ray cluster. With
    --shard 1/8 to 8/8, eight processes write a share each, as array jobs of Slurm do, and
    --finish makes OUT appear. With --dtype smallest each share is done twice: first all
    look at the values, then they write.

    \b
    Examples:
      releasekit convert LLaMA/65B llama-65b
      releasekit convert old-model new-model --dtype bfloat16 --shard-size 2GB
      releasekit convert fp32-model same-values --dtype smallest
    """
    from releasekit import convert, convert_share, convert_spread, finish_convert
    from releasekit.parts.engines import pool_of

    share = share_of(engine, shard, finish=finish)
    work |= {"dtype": dtype, "shard_nbytes": shard_size}
    shell.note_compiling()
    shell.resume_hint = (
        f"{out} was not made; run the same command to go on, finished files are kept in "
        f"{out}.partial"
    )
    if share is not None:
        with shell.progress() as progress:
            part = convert_share(source, out, share=share, progress=progress, **work)
        share_result(shell, part, again=part.again)
        return
    with ExitStack() as stack:
        pool = stack.enter_context(pool_of(engine, out))
        make = finish_convert if finish else convert
        if pool is not None and not finish:
            make = partial(convert_spread, pool=pool)
        progress = stack.enter_context(shell.progress())
        made = make(source, out, progress=progress, **work)
    _show(shell, made, dtype)


def _show(shell: Shell, made: ConvertResult, dtype: str | None) -> None:
    """Say what was written, where `dtype` was asked for."""
    from releasekit.statistics.document import narrowing_document
    from releasekit.storage.address import text

    document = {
        "out": text(made.out),
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
        "uncounted": list(made.uncounted),
        "workers": worker_document(made.workers),
        "seconds": made.seconds,
    }
    pairs = [
        ("model", f"{text(made.out)}, from {made.kind}"),
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
        if made.uncounted:
            rounded += f"; not counted in {len(made.uncounted)} kept files"
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
    pairs += worker_facts(made.workers)
    if shell.verbose:
        pairs += [(digest, name) for name, digest in made.files.items()]
    shell.result(document, render.facts(pairs))
