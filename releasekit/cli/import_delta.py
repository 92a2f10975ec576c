"""`releasekit import-delta`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import license_options, licensing_of, warn_of
from releasekit.cli.make import document_of, facts_of
from releasekit.cli.shell import (
    Shell,
    Size,
    common_options,
    recipe_options,
    work_options,
)
from releasekit.cli.signatures import label_options, load_key


@click.command("import-delta", epilog=EPILOG)
@click.option("--base", required=True, type=click.Path(path_type=Path), help="Base model.")
@click.option(
    "--delta", required=True, type=click.Path(path_type=Path), help="Somebody's delta."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option(
    "--accept-base",
    "accept",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another copy of the base that users may have; it is checked. May be repeated.",
)
@click.option(
    "--model-shard-size",
    type=Size(),
    default="5GB",
    show_default=True,
    help="Most bytes of tensors in a file of the model that the release rebuilds.",
)
@click.option(
    "--shard-size",
    type=Size(),
    default="2GB",
    show_default=True,
    help="Close a payload file at this size.",
)
@label_options
@license_options
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@recipe_options
@work_options
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    base: Path,
    delta: Path,
    out: Path,
    model_shard_size: int,
    shard_size: int,
    sign_key: Path | None,
    passphrase_file: Path | None,
    **options: Any,
) -> None:
    """Turn somebody else's additive delta into a release with digests.

    DELTA is what FastChat, Vicuna, StableVicuna, FreeWilly1, LLaVA or Stanford Alpaca
    published: differences to be added to BASE. The release rebuilds the model that the
    publisher's script makes of both, byte for byte, and is smaller. Config and tokenizer of
    DELTA go with it. The model itself is never written.

    \b
    Example:
      releasekit import-delta --base llama-13b --delta vicuna-13b-delta --out vicuna-13b
    """
    from releasekit import import_delta

    shell.resume_hint = (
        f"{out} was not made; run the same command to go on, finished tensors are kept in "
        f"{out}.partial"
    )
    key = load_key(shell, sign_key, passphrase_file, published=delta)
    licensing = licensing_of(options)
    shell.note_compiling()
    with shell.progress() as progress:
        done = import_delta(
            base,
            delta,
            out,
            sign_key=key,
            licensing=licensing,
            model_shard_nbytes=model_shard_size,
            shard_nbytes=shard_size,
            progress=progress,
            **options,
        )
    warn_of(shell, done.made)
    document = document_of(done.made) | {
        "recipe": done.recipe,
        "why": done.why,
        "dtype": done.dtype,
        "notes": list(done.notes),
    }
    pairs = [
        ("recipe", f"{done.recipe}, in {done.dtype}: {done.why}"),
        *(("note", note) for note in done.notes),
        *facts_of(done.made, verbose=shell.verbose),
    ]
    shell.result(document, render.facts(pairs))
