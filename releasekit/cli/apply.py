"""`releasekit apply-delta`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render, signatures
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import (
    accept_option,
    consent_of,
    license_document,
    license_facts,
)
from releasekit.cli.shell import (
    Shell,
    Size,
    common_options,
    printable,
    recipe_options,
    work_options,
)
from releasekit.cli.signatures import policy_of, use_options
from releasekit.cli.spreading import (
    share_of,
    share_result,
    spread_options,
    worker_document,
    worker_facts,
)

if TYPE_CHECKING:
    from releasekit.foreign.apply import ForeignResult

_Foreign = tuple[Path, Path, Path]  # base, delta, out
_Paths = tuple[Path, tuple[Path, ...], Path]  # base, deltas, out


@click.command("apply-delta", epilog=EPILOG)
@click.option("--base", required=True, type=click.Path(path_type=Path), help="Base model.")
@click.option(
    "--delta",
    "deltas",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Release. Give it again for each of several that build on each other.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option("--dry-run", is_flag=True, help="Check, and say what would be done.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option(
    "--expect-sum",
    type=float,
    help="With somebody else's delta: fail unless all weights add up to this, as "
    "stanford_alpaca's script does (50637.1836 for tatsu-lab's Alpaca 7B).",
)
@click.option(
    "--shard-size",
    type=Size(),
    default="5GB",
    show_default=True,
    help="With somebody else's delta: most bytes of tensors in a file of the result.",
)
@spread_options
@accept_option
@use_options
@recipe_options
@work_options
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    base: Path,
    deltas: tuple[Path, ...],
    out: Path,
    dry_run: bool,
    accept_license: bool,
    **options: Any,
) -> None:
    """Rebuild a released model from its base: the publisher's files, byte for byte.

    BASE must hold the same tensors as the base that the release was made with, in any
    form: safetensors, PyTorch's .bin, .pt or .pth, Meta's consolidated.NN.pth, in any
    sharding, or org/name@revision on the Hugging Face Hub; so may DELTA be on the Hub. OUT
    appears once every file in it has the publisher's digest.

    Deltas of other tools are recognised: those to be added (FastChat, Vicuna, StableVicuna,
    FreeWilly1, LLaVA, Stanford Alpaca) and Open-Assistant's XOR files. They carry no
    digests, so those of the result are printed, and kept in OUT/SHA256SUMS.

    A release's signature is checked before anything else in it is read, with the public key
    that you give, or those in your trust file. One without is applied with a warning.
    Licences that restrict what the model may be used for are shown before work; where one
    must be accepted, you are asked, or give --accept-license.

    An upgrade is a release made on what an earlier release rebuilds, such as v1.1 on v1.0.
    Name all of them, in any order: the last one's model is rebuilt, at once, and those of
    the others are not written.

    With --engine ray, parts of the work go to the machines of a Ray cluster, and again to
    others if one is lost. With --shard 1/8 to 8/8, eight processes do a share each, as
    array jobs of Slurm do, and --finish makes OUT appear.

    \b
    Examples:
      releasekit apply-delta --base llama-65b --delta my-tune-delta --out my-tune
      releasekit apply-delta --base llama-65b --delta acme/my-tune-delta --out my-tune \\
          --public-key acme.pub.pem
      releasekit apply-delta --base llama-7b --delta alpaca-7b-wdiff --out alpaca-7b
      releasekit apply-delta --base llama-65b --delta acme/my-tune-delta@v1.0 \\
          --delta acme/my-tune-delta@v1.1 --out my-tune
    """
    from releasekit.authenticity import refuse_unsigned
    from releasekit.checkpoint.locate import look
    from releasekit.delta.lineage import one_alone
    from releasekit.foreign.recognise import Origin, recognise

    shell.resume_hint = (
        f"{out} was not made; run the same command to go on, finished files are kept in "
        f"{out}.partial"
    )
    policy = policy_of(shell, options)
    with shell.progress() as progress:
        origins = [recognise(look(one, progress), options["recipe"]) for one in deltas]
    paths = base, deltas, out
    if all(origin is Origin.RELEASE for origin in origins):
        ours = {n: options[n] for n in ("force", "device", "threads", "max_memory")}
        ours["policy"] = policy
        ours["accept_license"] = consent_of(shell, accept_license)
        ours |= {name: options[name] for name in ("engine", "shard", "finish")}
        _refuse(options, "dtype", "order", "expect_sum")
        _release(shell, paths, ours, dry_run=dry_run)
        return
    delta = Path(one_alone(deltas))
    options["policy"] = policy.of(delta)
    refuse_unsigned(delta, options["policy"])  # under the name that the user gave
    for name, usual in (("engine", "local"), ("shard", None), ("finish", False)):
        if options.pop(name) != usual:
            raise click.UsageError(f"--{name} is for releases of releasekit; leave it out")
    if origins[0] is Origin.ADDITIVE:
        _additive(shell, (base, delta, out), options, dry_run=dry_run)
    else:
        _refuse(options, "dtype", "order", "expect_sum")
        _xor(shell, (base, delta, out), options, dry_run=dry_run)


def _refuse(options: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if options[name] is not None:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is for somebody else's additive delta, which "
                "this is not; leave it out"
            )


def _release(shell: Shell, paths: _Paths, work: dict[str, Any], *, dry_run: bool) -> None:
    from releasekit import apply_delta, apply_share, apply_spread, finish_apply
    from releasekit.parts.engines import pool_of
    from releasekit.storage.address import text

    engine, shard, finish = (work.pop(name) for name in ("engine", "shard", "finish"))
    share = share_of(engine, shard, finish=finish, dry_run=dry_run)
    if dry_run:
        _plan_release(shell, paths, work)
        return
    shell.note_compiling()
    if share is not None:
        with shell.progress() as progress:
            share_result(shell, apply_share(*paths, share=share, progress=progress, **work))
        return
    with ExitStack() as stack:
        pool = stack.enter_context(pool_of(engine, paths[2]))
        apply = finish_apply if finish else apply_delta
        if pool is not None and not finish:
            apply = partial(apply_spread, pool=pool)
        progress = stack.enter_context(shell.progress())
        result = apply(*paths, progress=progress, **work)
    document = {
        "out": text(result.out),
        "name": result.name,
        "releases": list(result.releases),
        "identity": result.identity,
        "nbytes": result.nbytes,
        "files": result.files,
        "kept": list(result.kept),
        "device": result.device,
        "workers": worker_document(result.workers),
        "notes": list(result.notes),
        "signature": signatures.document(result.authenticity),
        "licenses": license_document(result.licenses),
    }
    pairs = [
        ("model", f"{result.name} in {text(result.out)}"),
        *_releases(result.releases),
        ("files", f"{len(result.files)}, {render.size(result.nbytes)}"),
        ("identity", f"{result.identity} (every digest as published)"),
        ("signature", result.authenticity.text),
        *license_facts(result.licenses),
    ]
    if result.kept:
        pairs.append(("kept", f"{len(result.kept)} files of an earlier run"))
    pairs += [("note", note) for note in result.notes]
    pairs += worker_facts(result.workers)
    if shell.verbose:
        pairs.append(("device", result.device))
        pairs += [(digest, name) for name, digest in result.files.items()]
    shell.result(document, render.facts(pairs))


def _plan_release(shell: Shell, paths: _Paths, work: dict[str, Any]) -> None:
    from releasekit import plan_apply

    work = {name: value for name, value in work.items() if name != "accept_license"}
    plan = plan_apply(*paths, **work)
    document = {
        "out": str(paths[2]),
        "releases": list(plan.releases),
        "files": plan.files,
        "base_nbytes": plan.base_nbytes,
        "delta_nbytes": plan.delta_nbytes,
        "write_nbytes": plan.write_nbytes,
        "memory_nbytes": plan.memory_nbytes,
        "threads": plan.threads,
        "device": plan.device,
        "free_nbytes": plan.free_nbytes,
        "download_nbytes": plan.download_nbytes,
        "notes": list(plan.notes),
        "signature": signatures.document(plan.authenticity),
        "licenses": license_document(plan.licenses),
    }
    pairs = [
        *_releases(plan.releases),
        *_needs(document),
        ("signature", plan.authenticity.text),
        *license_facts(plan.licenses),
        ("device", plan.device),
        *(("note", note) for note in plan.notes),
    ]
    if shell.verbose:
        pairs += [(render.size(nbytes), name) for name, nbytes in plan.files.items()]
    shell.result(document, render.facts(pairs))


def _releases(titles: tuple[str, ...]) -> list[tuple[str, str]]:
    """The releases, if there are several."""
    return [("by way of", ", then ".join(titles))] if len(titles) > 1 else []


def _needs(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """What a plan reads, writes and takes."""
    written = f"{len(plan['files'])} files, {render.size(plan['write_nbytes'])}"
    short = " (too little)" * (plan["free_nbytes"] < plan["write_nbytes"])
    return [
        ("would write", f"{written}, {plan['out']}"),
        ("would read", f"{render.size(plan['base_nbytes'])} of the base"),
        ("", f"{render.size(plan['delta_nbytes'])} of the delta"),
        *_to_download(plan),
        ("disk", f"{render.size(plan['free_nbytes'])} free{short}"),
        ("memory", f"at most {render.size(plan['memory_nbytes'])}"),
        ("threads", str(plan["threads"])),
    ]


def _to_download(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """What comes from the Hub first, if anything does."""
    nbytes = plan.get("download_nbytes")
    return [("would download", render.size(nbytes))] if nbytes else []


def _additive(
    shell: Shell, paths: _Foreign, options: dict[str, Any], *, dry_run: bool
) -> None:
    from releasekit import apply_foreign, plan_foreign

    options = dict(options)
    del options["device"]  # the sum is the processor's work, and waits for the disk
    options["shard_nbytes"] = options.pop("shard_size")
    if dry_run:
        del options["expect_sum"], options["policy"]
        plan = plan_foreign(*paths, **options)
        document = {
            "out": str(paths[2]),
            "recipe": plan.recipe,
            "why": plan.why,
            "dtype": plan.dtype,
            "files": plan.files,
            "base_nbytes": plan.base_nbytes,
            "delta_nbytes": plan.delta_nbytes,
            "write_nbytes": plan.write_nbytes,
            "memory_nbytes": plan.memory_nbytes,
            "threads": plan.threads,
            "free_nbytes": plan.free_nbytes,
            "notes": list(plan.notes),
        }
        pairs = [
            ("recipe", f"{plan.recipe}, in {plan.dtype}: {plan.why}"),
            *_needs(document),
            *(("note", note) for note in plan.notes),
        ]
        shell.result(document, render.facts(pairs))
        return
    shell.note_compiling()
    with shell.progress() as progress:
        result = apply_foreign(*paths, progress=progress, **options)
    _foreign_result(shell, result)


def _xor(shell: Shell, paths: _Foreign, options: dict[str, Any], *, dry_run: bool) -> None:
    from releasekit import apply_xor

    if dry_run:
        raise click.UsageError(
            "--dry-run tells nothing of XOR files: whether the base's bytes are the right "
            "ones shows only in the result; leave it out"
        )
    with shell.progress() as progress:
        ours = {name: options[name] for name in ("force", "threads", "policy")}
        result = apply_xor(*paths, progress=progress, **ours)
    _foreign_result(shell, result)


def _foreign_result(shell: Shell, result: ForeignResult) -> None:
    document = {
        "out": str(result.out),
        "recipe": result.recipe,
        "why": result.why,
        "dtype": result.dtype,
        "identity": result.identity,
        "nbytes": result.nbytes,
        "files": result.files,
        "sum": result.sum,
        "sum_with_buffers": result.sum_with_buffers,
        "kept": list(result.kept),
        "notes": list(result.notes),
        "seconds": result.seconds,
    }
    how = "" if result.dtype is None else f", in {result.dtype}"
    pairs = [
        ("model", str(result.out)),
        ("recipe", f"{result.recipe}{how}: {result.why}"),
        ("files", f"{len(result.files)}, {render.size(result.nbytes)}"),
    ]
    if result.identity is not None:
        pairs.append(("identity", result.identity))
        buffers = ""
        if result.sum_with_buffers != result.sum:
            buffers = f"; {result.sum_with_buffers:.4f} with inv_freq buffers"
        pairs.append(("sum", f"{result.sum:.4f}, of all weights{buffers}"))
    if result.kept:
        pairs.append(("kept", f"{len(result.kept)} files of an earlier run"))
    pairs += [("note", note) for note in result.notes]
    lines = [
        *render.facts(pairs),
        "",
        "The publisher gave no digests to check this by; compare it with what others have:",
        *(f"{digest}  {printable(name)}" for name, digest in result.files.items()),
    ]
    shell.result(document, lines)
