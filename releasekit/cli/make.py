"""`releasekit make-delta`."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import (
    finding_document,
    license_options,
    licensing_of,
    warn_of,
)
from releasekit.cli.shell import Shell, Size, common_options, work_options
from releasekit.cli.signatures import label_options, load_key
from releasekit.cli.spreading import (
    share_of,
    share_result,
    spread_options,
    worker_document,
    worker_facts,
)

if TYPE_CHECKING:
    from releasekit.delta.making.make import MakeResult


@click.command("make-delta", epilog=EPILOG)
@click.option("--base", required=True, type=click.Path(path_type=Path), help="Base model.")
@click.option(
    "--target", required=True, type=click.Path(path_type=Path), help="Fine-tuned model."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option(
    "--codec",
    type=click.Choice(["ulp", "add"]),
    default="ulp",
    show_default=True,
    help="ulp: smallest. add: plain differences, which FastChat's apply_delta can add up "
    "too, and what rounding loses of them; as large as the model.",
)
@click.option(
    "--accept-base",
    "accept",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another copy of the base that users may have. It must serve as well, bit for "
    "bit, which is checked. May be repeated.",
)
@click.option(
    "--base-release",
    type=click.Path(path_type=Path),
    help="The release that rebuilds BASE, if this is an upgrade of it, such as v1.1 of "
    "v1.0: users are told of it, and can apply both at once.",
)
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
@label_options
@license_options
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@spread_options
@work_options
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    base: Path,
    target: Path,
    out: Path,
    codec: str,
    shard_size: int,
    sign_key: Path | None,
    passphrase_file: Path | None,
    engine: str,
    shard: str | None,
    finish: bool,
    **options: Any,
) -> None:
    """Release a fine-tuned model as its difference from a base.

    BASE is a model in any form that can be read: safetensors, PyTorch's .bin, .pt or .pth,
    Meta's consolidated.NN.pth, or org/name@revision on the Hugging Face Hub. TARGET is a
    safetensors model: a folder, an index, or a single file. OUT becomes a folder that
    rebuilds every file of TARGET byte for byte, for whoever holds BASE in whatever form.
    The round trip is proved before OUT appears.

    With --engine ray, parts of the work go to the machines of a Ray cluster, and again to
    others if one is lost. With --shard 1/8 to 8/8, eight processes do a share each, as
    array jobs of Slurm do, with the same options; then --finish makes OUT appear. The key
    is read only where OUT appears, never for a share.

    \b
    Examples:
      releasekit make-delta --base llama-65b --target my-tune --out my-tune-delta
      releasekit make-delta --base llama-65b --target my-tune --out my-tune-delta \\
          --publisher acme --version 1.0 --sign-key acme.pem
      releasekit make-delta --base my-tune --base-release acme/my-tune-delta@v1.0 \\
          --target my-tune-1.1 --out my-tune-1.1-delta --name my-tune --version 1.1
    """
    from releasekit import Add, Ulp, finish_make, make_delta, make_share, make_spread
    from releasekit.parts.engines import pool_of

    share = share_of(engine, shard, finish=finish)
    shell.resume_hint = (
        f"{out} was not made; run the same command to go on, finished tensors are kept in "
        f"{out}.partial"
    )
    options["licensing"] = licensing_of(options)
    options["codec"] = Add() if codec == "add" else Ulp()
    options["shard_nbytes"] = shard_size
    if share is not None:
        shell.note_compiling()
        with shell.progress() as progress:
            part = make_share(base, target, out, share=share, progress=progress, **options)
        share_result(shell, part)
        return
    key = load_key(shell, sign_key, passphrase_file, published=target)
    shell.note_compiling()
    with ExitStack() as stack:
        pool = stack.enter_context(pool_of(engine, out))
        make = finish_make if finish else make_delta
        if pool is not None and not finish:
            make = partial(make_spread, pool=pool)
        progress = stack.enter_context(shell.progress())
        made = make(base, target, out, sign_key=key, progress=progress, **options)
    warn_of(shell, made)
    shell.result(document_of(made), render.facts(facts_of(made, verbose=shell.verbose)))


def document_of(made: MakeResult) -> dict[str, Any]:
    """What was released, as JSON has it."""
    return {
        "out": str(made.out),
        "name": made.name,
        "version": made.version,
        "publisher": made.publisher,
        "key": made.key,
        "licenses": list(made.licenses),
        "findings": [finding_document(finding) for finding in made.findings],
        "codec": made.codec,
        "base_identity": made.base_identity,
        "accepted": list(made.accepted),
        "target_identity": made.target_identity,
        "operations": made.operations,
        "full_nbytes": made.full_nbytes,
        "published_nbytes": made.published_nbytes,
        "ratio": made.ratio,
        "unchanged": made.unchanged,
        "kept": made.kept,
        "excluded": list(made.excluded),
        "device": made.device,
        "workers": worker_document(made.workers),
        "seconds": made.seconds,
    }


def facts_of(made: MakeResult, *, verbose: bool) -> list[tuple[str, str]]:
    """What was released, for people."""
    unchanged = f"{render.share(made.unchanged)} of the elements"
    if made.codec == "add-v1":
        unchanged = f"exact for {unchanged}; the rest is corrected here, not by others"
    pairs = [
        ("release", f"{made.name}, version {made.version}, in {made.out}"),
        ("tensors", render.operations(made.operations)),
        ("full size", render.size(made.full_nbytes)),
        ("published", f"{render.size(made.published_nbytes)}, {render.share(made.ratio)}"),
        ("unchanged" if made.codec == "ulp-v1" else "plain sum", unchanged),
        ("base", made.base_identity),
        *(("or", identity) for identity in made.accepted),
        ("rebuilds", f"{made.target_identity} (proved)"),
        ("signed", f"by key {made.key}" if made.key else "no; see `releasekit sign`"),
        ("licences", ", ".join(made.licenses) or "none: not fit to publish; see --license"),
        ("time", f"{made.seconds:.1f} s"),
    ]
    if made.kept:
        pairs.append(("kept", f"{made.kept} tensors of an earlier run"))
    if made.excluded:
        pairs.append(("left out", ", ".join(made.excluded)))
    pairs += worker_facts(made.workers)
    if verbose:
        pairs.append(("device", made.device))
        pairs += [(op, name) for name, op in made.tensors.items() if op != "delta"]
    return pairs
