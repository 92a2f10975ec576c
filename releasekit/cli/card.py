"""`releasekit card`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import finding_document, license_options, licensing_of
from releasekit.cli.shell import Shell, common_options, printable
from releasekit.cli.signatures import load_key, passphrase_option, succession_option

if TYPE_CHECKING:
    from releasekit.findings import RuleFinding
    from releasekit.presentation.writing import CardResult

_PATH = click.Path(path_type=Path)


@click.command("card", epilog=EPILOG)
@click.argument("folder", metavar="RELEASE", type=_PATH)
@click.option(
    "--facts", type=_PATH, help="TOML file of what only you know: data, prompt, limits, …"
)
@click.option(
    "--results",
    multiple=True,
    type=_PATH,
    help="File with evaluations of the model: lm-evaluation-harness's JSON, or a table in "
    "CSV or TOML. May be repeated.",
)
@click.option(
    "--base-results",
    multiple=True,
    type=_PATH,
    help="The same of its base. May be repeated.",
)
@click.option("--repo", metavar="ORG/NAME", help="Id of the release on the Hub.")
@click.option("--name", help="Name of a full model; by default its folder's.")
@click.option("--base", help="Base of a full model, beside which its licences lie.")
@license_options
@click.option(
    "--report", type=_PATH, help="Folder of a report, whose summary the card takes over."
)
@click.option("--templates", type=_PATH, help="Folder with templates of your own.")
@click.option("--no-chart", is_flag=True, help="Draw no charts of the evaluations.")
@click.option("--sign-key", type=_PATH, help="Private key in PEM that signs the folder.")
@passphrase_option
@succession_option
@click.option(
    "--public-key", type=_PATH, help="Public key in PEM of the one that will sign it."
)
@click.option("--unsign", is_flag=True, help="Remove a signature that there is.")
@click.option("--force", is_flag=True, help="Write sections anew that were edited by hand.")
@click.option("--check", is_flag=True, help="Write nothing; check the card that is there.")
@click.option("--online", is_flag=True, help="With --check: ask the Hub, too.")
@click.option("--threads", type=click.IntRange(1), help="By default one a processor.")
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    folder: Path,
    check: bool,
    online: bool,
    sign_key: Path | None,
    passphrase_file: Path | None,
    public_key: Path | None,
    no_chart: bool,
    **options: Any,
) -> int:
    """Write the model card of a release, or of a full model.

    README.md gets the metadata that the Hub reads, and sections that say what the model is,
    how to rebuild it, what it is under, how well it does, and how to check it. What you add
    to it stays, and so does a section that you edit. Results go into RELEASE, with a chart,
    so that every number can be traced. Facts that nobody gave are listed, not made up.

    A delta has its licences from make-delta; those of a full model are given here.

    \b
    Examples:
      releasekit card my-tune-delta --facts card.toml --repo acme/my-tune-delta \\
          --results results.json --base-results base.json --sign-key acme.pem
      releasekit card my-model --license apache-2.0 --facts card.toml
      releasekit card my-tune-delta --check
    """
    licensing = licensing_of(options)
    if check:
        given = [name for name, value in options.items() if value and name != "threads"]
        if given or sign_key or not licensing.says_nothing:
            raise click.UsageError(
                "--check writes nothing, and takes only --online; leave the others out"
            )
        return _check(shell, folder, online=online)
    if online:
        raise click.UsageError("--online asks the Hub what --check does not know; add it")
    from releasekit import write_card

    shell.resume_hint = "run the same command again, which completes what was begun"
    key = load_key(shell, sign_key, passphrase_file, published=folder)
    with shell.progress() as progress:
        done = write_card(
            folder,
            licensing=licensing,
            chart=not no_chart,
            sign_key=key,
            public_key=_public(public_key),
            progress=progress,
            **options,
        )
    for finding in done.findings:
        shell.warn(str(finding))
    if done.missing:
        shell.warn(
            f"{done.path}: facts that users look for are not stated: "
            f"{', '.join(done.missing)}; give them with --facts"
        )
    shell.result(_document(done), render.facts(list(_pairs(done, shell.verbose))))
    return 0


def _public(path: Path | None) -> Any:
    if path is None:
        return None
    from releasekit.signing.keys import PublicKey

    return PublicKey.load(path)


def _check(shell: Shell, folder: Path, *, online: bool) -> int:
    from releasekit import check_card
    from releasekit.cli.exits import exit_code
    from releasekit.errors import FormatError

    findings = check_card(folder, online=online)
    errors = sum(finding.is_error for finding in findings)
    document = {
        "path": str(folder / "README.md"),
        "ok": not errors,
        "findings": [finding_document(finding) for finding in findings],
    }
    summary = f"{errors} errors, {len(findings) - errors} warnings"
    lines = [*_lines(findings), *render.facts([("found", summary)])]
    shell.result(document, lines)
    return exit_code(FormatError()) if errors else 0


def _lines(findings: Sequence[RuleFinding]) -> Iterator[str]:
    for finding in findings:
        yield printable(f"{finding.rule.severity.value} {finding}")


def _document(done: CardResult) -> dict[str, Any]:
    return {
        "path": str(done.path),
        "name": done.name,
        "kind": done.kind,
        "files": list(done.files),
        "kept": list(done.kept),
        "missing": list(done.missing),
        "findings": [finding_document(finding) for finding in done.findings],
        "averages": {
            suite: {"model": model, "base": base}
            for suite, (model, base) in done.averages.items()
        },
        "key": done.key,
    }


def _pairs(done: CardResult, verbose: bool) -> Iterator[tuple[str, str]]:
    yield "card", f"{done.path}, of {done.name} ({done.kind})"
    for suite, (model, base) in done.averages.items():
        against = "" if base is None else f", base {base:.2f}"
        yield suite, "incomplete" if model is None else f"{model:.2f}{against}"
    yield "files", f"{len(done.files)}"
    if done.kept:
        yield "kept", f"{', '.join(done.kept)}: edited by hand; --force writes them anew"
    yield "signed", f"by key {done.key}" if done.key else "no; see `releasekit sign`"
    if verbose:
        for name in done.files:
            yield "", name
