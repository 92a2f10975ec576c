"""`releasekit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import accept_option, consent_of
from releasekit.cli.shell import Shell, common_options, memory_options
from releasekit.cli.signatures import check_options, policy_of


@click.command("report", epilog=EPILOG)
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="[B]", required=False, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    help="Base model, if A is a delta release and there is no B.",
)
@accept_option
@check_options
@memory_options
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    first: Path,
    second: Path | None,
    out: Path,
    base: Path | None,
    accept_license: bool,
    threads: int | None,
    max_memory: int,
    **options: Any,
) -> None:
    """Draw a model, or a model against its base: a page with charts, and PNGs.

    A alone is described: size by layer and by kind (attention, MLP, experts, …), dtypes,
    values, outliers. With B, A is its base, and B a fine-tune or a delta release on A: the
    report also shows which weights are unchanged, how far the others moved, layer by
    layer, and what was published. Evaluations beside B are shown, too.

    Models may be in any form that can be read, or org/name@revision on the Hugging Face
    Hub. They are read once, in bounded memory. OUT/report.html needs no network and no
    other file, and reads in light, in dark, on a phone and on paper; OUT/report.json has
    all figures.

    \b
    Examples:
      releasekit report my-tune --out my-tune-report
      releasekit report llama-7b my-tune --out my-tune-report
      releasekit report my-tune-delta --base llama-7b --out my-tune-report
    """
    from releasekit.reporting import report
    from releasekit.statistics.portrait import document
    from releasekit.statistics.summary import sentences

    policy = policy_of(shell, options)
    shell.note_compiling()
    with shell.progress() as progress:
        made = report(
            first,
            second,
            out=out,
            base=base,
            policy=policy,
            accept_license=consent_of(shell, accept_license),
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
    statistics = document(made.portrait, tensors=False)
    facts = [
        ("report", str(made.out / "report.html")),
        ("files", f"{len(made.files)}, {render.size(sum(made.files.values()))}"),
        *(
            (("" if at else "summary"), text)
            for at, text in enumerate(sentences(made.portrait))
        ),
    ]
    shell.result(
        {
            "out": str(made.out),
            "files": made.files,
            "seconds": made.seconds,
            "statistics": statistics,
        },
        render.facts(facts),
    )
