"""`releasekit licenses`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import finding_document, folders_option, license_document
from releasekit.cli.shell import Shell, common_options, printable

if TYPE_CHECKING:
    from releasekit.licenses.records import LicenseRecord


@click.group("licenses", epilog=EPILOG)
def command() -> None:
    """Licences of models: what is known of them, and whether a release keeps to them.

    \b
    Examples:
      releasekit licenses list
      releasekit licenses show llama-2
      releasekit licenses check my-tune-delta
    """


@command.command("list", epilog=EPILOG)
@folders_option
@common_options
@click.pass_obj
def list_command(shell: Shell, license_dirs: tuple[Path, ...]) -> None:
    """List the licences that have a record, with the Hub's name of each."""
    from releasekit.license_files import load_catalogue

    records = list(load_catalogue(license_dirs))
    rows = [
        (record.id, record.hub_name or record.hub, _use(record), record.name)
        for record in records
    ]
    shell.result(
        {"licenses": [_document(record) for record in records]},
        render.table(("id", "on the Hub", "use", "name"), rows, "llll"),
    )


@command.command("show", epilog=EPILOG)
@click.argument("name", metavar="LICENSE")
@folders_option
@common_options
@click.pass_obj
def show_command(shell: Shell, name: str, license_dirs: tuple[Path, ...]) -> None:
    """Show what a licence asks, and what must travel with copies and derivatives.

    LICENSE is its id, or another name of it: the Hub's, or SPDX's.
    """
    from releasekit.license_files import load_catalogue

    record = load_catalogue(license_dirs).get(name)
    lines = [*textwrap.wrap(printable(record.summary), 88), ""]
    shell.result(_document(record), [*lines, *render.facts(_facts(record))])


@command.command("check", epilog=EPILOG)
@click.argument("folder", metavar="RELEASE", type=click.Path(path_type=Path))
@click.option("--name", help="What it will be called; by default as the release says.")
@click.option(
    "--private", is_flag=True, help="It stays private: weights may be kept, not shown."
)
@folders_option
@common_options
@click.pass_obj
def check_command(
    shell: Shell,
    folder: Path,
    name: str | None,
    private: bool,
    license_dirs: tuple[Path, ...],
) -> int:
    """Check that a release, or a model's folder, keeps to its licences.

    Errors are what a licence forbids, or prescribes and is not there; the exit code is 7
    then. Warnings are for you to judge. Engineering, not legal advice.

    \b
    Example:
      releasekit licenses check my-tune-delta
    """
    from releasekit import check_licenses
    from releasekit.cli.exits import exit_code
    from releasekit.errors import LicenseError

    found = check_licenses(folder, name=name, public=not private, folders=license_dirs)
    document = {
        "path": str(found.path),
        "name": found.name,
        "kind": found.kind,
        "ok": found.ok,
        "licenses": license_document(found.chain),
        "findings": [finding_document(finding) for finding in found.findings],
    }
    lines: list[str] = []
    for finding in found.findings:
        lines.append(printable(f"{finding.rule.severity.value} {finding.rule.id}"))
        for text in (finding.why, finding.todo):
            lines += textwrap.wrap(
                printable(text), 88, initial_indent="  ", subsequent_indent="    "
            )
    errors = sum(finding.is_error for finding in found.findings)
    ids = [grant.id for grant in found.chain.distinct] if found.chain else []
    pairs = [
        (found.kind, found.name),
        ("licences", ", ".join(ids) or "none"),
        ("found", f"{errors} errors, {len(found.findings) - errors} warnings"),
    ]
    shell.result(document, [*lines, *render.facts(pairs)])
    return 0 if found.ok else exit_code(LicenseError())


def _use(record: LicenseRecord) -> str:
    if record.research_only:
        return "research only"
    return "commercial" if record.commercial else "non-commercial"


def _facts(record: LicenseRecord) -> list[tuple[str, str]]:
    """A record for people."""
    travels, naming = record.travels, record.naming
    with_copies = [
        what
        for what, asked in (
            ("the licence's text", travels.text),
            ("a prescribed line", travels.notice is not None),
            ("the use policy", travels.use_policy),
            ("what was changed", travels.changes),
        )
        if asked
    ]
    pairs = [
        ("licence", record.edition),
        ("id", ", ".join(record.names)),
        ("on the Hub", f"{record.hub} {record.hub_name or ''}".strip()),
        ("use", _use(record) + ", to be accepted first" * record.acceptance),
        ("with copies", ", ".join(with_copies) or "nothing"),
        ("line", travels.notice),
        ("name begins", naming.prefix),
        ("display", naming.built_with),
        ("derivatives", "under the same licence" if record.same_license else None),
        ("restrictions", "bind users of derivatives too" if record.restrictions else None),
        ("not allowed", None if record.sublicense else "sublicensing"),
        ("not allowed", None if record.uploads_weights else _no_weights(record)),
        ("not allowed", None if record.train_others else "training others on outputs"),
        (
            "users",
            f"at most {record.monthly_users:,} a month" if record.monthly_users else None,
        ),
        ("published at", record.url),
    ]
    return [(label, value) for label, value in pairs if value]


def _no_weights(record: LicenseRecord) -> str:
    why = f": {record.uploads_why}" if record.uploads_why else ""
    return f"publishing full weights{why}"


def _document(record: LicenseRecord) -> dict[str, Any]:
    """A record, as JSON has it."""
    return {
        "id": record.id,
        "name": record.name,
        "aliases": list(record.aliases),
        "hub": record.hub,
        "hub_name": record.hub_name,
        "spdx": record.spdx,
        "version": record.version,
        "date": record.date,
        "url": record.url,
        "commercial": record.commercial,
        "research_only": record.research_only,
        "acceptance": record.acceptance,
        "summary": record.summary,
        "travels": {
            "text": record.travels.text,
            "notice": record.travels.notice,
            "use_policy": record.travels.use_policy,
            "changes": record.travels.changes,
        },
        "naming": {
            "prefix": record.naming.prefix,
            "built_with": record.naming.built_with,
            "outputs": record.naming.outputs,
        },
        "same_license": record.same_license,
        "restrictions": record.restrictions,
        "sublicense": record.sublicense,
        "uploads_weights": record.uploads_weights,
        "train_others": record.train_others,
        "monthly_users": record.monthly_users,
    }
