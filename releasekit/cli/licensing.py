"""What commands share that name licences, or show them: options, terms, questions."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from releasekit.cli.shell import Shell, printable

if TYPE_CHECKING:
    from releasekit.delta.making.make import MakeResult
    from releasekit.findings import RuleFinding
    from releasekit.licenses.chain import Chain
    from releasekit.licensing.terms import Licensing

_F = TypeVar("_F", bound=Callable[..., Any])
_WIDTH: Final = 78

#: `--accept-license`: where a model is put to use.
accept_option: Final = click.option(
    "--accept-license",
    is_flag=True,
    help="Accept the licences that must be accepted before the model is used; without it, "
    "you are asked on a terminal.",
)

#: `--license-dir`: where licences are looked up.
folders_option: Final = click.option(
    "--license-dir",
    "license_dirs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder with licence records of your own, *.toml. May be repeated.",
)


def license_options(command: _F) -> _F:
    """`--license` and others: under which licences something is released."""
    for option in (
        folders_option,
        click.option(
            "--teacher",
            "teachers",
            multiple=True,
            metavar="NAME",
            help="A model whose outputs it was trained on: a licence's id, or any name. "
            "May be repeated.",
        ),
        click.option(
            "--license-file",
            "license_files",
            multiple=True,
            metavar="[ID=]FILE",
            help="Text of the release's licence, or of that with ID; by default from "
            "beside the base's weights, or from SPDX. May be repeated.",
        ),
        click.option(
            "--rebuilt-license",
            metavar="ID",
            help="Licence of the model that the delta rebuilds, if it is another one.",
        ),
        click.option(
            "--base-license",
            "base_licenses",
            multiple=True,
            metavar="ID",
            help="Licence of the base, and of its bases, nearest first. May be repeated.",
        ),
        click.option(
            "--license",
            metavar="ID",
            help="Licence of the release; see `releasekit licenses list`.",
        ),
    ):
        command = option(command)
    return command


def licensing_of(options: dict[str, Any]) -> Licensing:
    """The licences that the options name; takes them out of `options`."""
    from releasekit.licensing.terms import Licensing

    return Licensing(
        license=options.pop("license"),
        bases=options.pop("base_licenses"),
        rebuilt=options.pop("rebuilt_license", None),
        files=options.pop("license_files"),
        folders=options.pop("license_dirs"),
        teachers=options.pop("teachers"),
    )


def warn_of(shell: Shell, made: MakeResult) -> None:
    """Tell what speaks against publishing a release; that it has no licence, it shows."""
    if made.licenses:
        for finding in made.findings:
            shell.warn(str(finding))


def consent_of(shell: Shell, accepted: bool) -> Callable[[Chain], bool]:
    """Shows the terms of a model that restrict its use, and asks where that is needed."""

    def ask(chain: Chain) -> bool:
        from releasekit.delta.consent import to_accept

        strict = to_accept(chain)
        question = bool(strict) and not accepted and _is_terminal()
        if not shell.quiet or question:
            for line in _terms(chain):
                click.echo(line, err=True)
        if not question:
            return accepted
        names = " and ".join(grant.name for grant in strict)
        return click.confirm(f"Do you accept {printable(names)}?", err=True)

    return ask


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _terms(chain: Chain) -> list[str]:
    """The licences of a model for people, those that leave use free in a line."""
    lines = ["The use of this model is restricted by its licences:"]
    for grant in chain.distinct:
        lines.append(f"  {printable(grant.name)} ({grant.use})")
        if not grant.free:
            lines += textwrap.wrap(
                printable(grant.summary),
                _WIDTH,
                initial_indent=" " * 4,
                subsequent_indent=" " * 4,
            )
        lines.append(f"    {printable(grant.url)}")
    return lines


def license_facts(chain: Chain | None) -> list[tuple[str, str]]:
    """Lines for a result."""
    if chain is None:
        return []
    return [("licence", f"{grant.id}: {grant.use}") for grant in chain.distinct]


def license_document(chain: Chain | None) -> list[dict[str, Any]]:
    """The licences of a model, as JSON has them."""
    return [
        {
            "id": grant.id,
            "name": grant.name,
            "of": grant.of,
            "commercial": grant.commercial,
            "research_only": grant.research_only,
            "acceptance": grant.acceptance,
            "url": grant.url,
            "texts": [text.path for text in grant.texts],
        }
        for grant in (chain.distinct if chain else ())
    ]


def finding_document(finding: RuleFinding) -> dict[str, Any]:
    """What a rule found, as JSON has it."""
    return {
        "rule": finding.rule.id,
        "severity": finding.rule.severity.value,
        "why": finding.why,
        "todo": finding.todo,
    }
