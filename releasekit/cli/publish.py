"""`releasekit publish`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render, signatures
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import finding_document, folders_option
from releasekit.cli.shell import Shell, common_options
from releasekit.cli.signatures import check_options, policy_of

if TYPE_CHECKING:
    from releasekit.publication import PublishPlan


@click.command("publish", epilog=EPILOG)
@click.argument("release", type=click.Path(path_type=Path))
@click.argument("repo", metavar="ORG/NAME")
@click.option("--dry-run", is_flag=True, help="Check, and say exactly what would be done.")
@click.option(
    "--public/--private",
    "public",
    default=None,
    help="Who may see it once all is done. By default as it is; a new one is private.",
)
@click.option(
    "--gated",
    type=click.Choice(["auto", "manual"]),
    help="Have users agree to the licence first; manual: you let each of them in. By "
    "default auto where a licence must be accepted, or is for research only.",
)
@click.option("--revision", default="main", show_default=True, help="Branch.")
@click.option("--create-pr", is_flag=True, help="Propose it as a pull request.")
@click.option("--version", help="Version of a full model; a delta has its own.")
@click.option(
    "--force",
    is_flag=True,
    help="Remove files from the branch that belong to something else. A version that is "
    "tagged does not change all the same.",
)
@click.option("--no-xet", is_flag=True, help="Upload by plain HTTP, not by Xet.")
@check_options
@folders_option
@click.option("--threads", type=click.IntRange(1), help="By default one a processor.")
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    release: Path,
    repo: str,
    dry_run: bool,
    no_xet: bool,
    license_dirs: tuple[Path, ...],
    threads: int | None,
    **options: Any,
) -> None:
    """Publish a release, or a full model, as ORG/NAME on the Hugging Face Hub.

    Checks first: every digest, the signature, the licences, the card. Then uploads what the
    Hub has not got, makes one commit of it on top of the one that it looked at, compares
    what the Hub then lists with the digests here, and tags the version, v1.1 for 1.1. A new
    repository is private until --public opens it, after all that.

    Run it again after it was stopped, wherever that was: it goes on, and sends nothing
    twice. A version that is tagged does not change; publish another one.

    The token is that of `hf auth login`, or HF_TOKEN; there is no option for it, since
    others can read a command's options.

    \b
    Examples:
      releasekit publish my-tune-delta acme/my-tune-delta --dry-run
      releasekit publish my-tune-delta acme/my-tune-delta --public
    """
    from releasekit.publication import Wishes, plan_publish, publish

    shell.resume_hint = "run the same command to go on; what was uploaded is kept"
    names = ("public", "gated", "revision", "create_pr", "version", "force")
    wishes = Wishes(**{name: options.pop(name) for name in names}, xet=not no_xet)
    policy = policy_of(shell, options)
    with shell.progress() as progress:
        work: dict[str, Any] = {
            "policy": policy,
            "license_folders": license_dirs,
            "threads": threads,
            "progress": progress,
        }
        if dry_run:
            plan = plan_publish(release, repo, wishes, **work)
            document = _document(plan)
        else:
            done = publish(release, repo, wishes, **work)
            plan = done.plan
            document = _document(plan) | {
                "commit": done.commit,
                "proposed": done.proposed,
            }
    facts = list(_facts(plan, done=not dry_run))
    if not dry_run:
        facts.insert(1, ("commit", str(document["commit"])))
        if document["proposed"]:
            facts.insert(2, ("pull request", str(document["proposed"])))
    lines = list(render.facts(facts))
    if shell.verbose or dry_run:
        lines += [f"  + {render.size(size):>9}  {n}" for n, size in plan.upload.items()]
        lines += [f"  -            {name}" for name in plan.remove]
    shell.result(document, lines)


def _document(plan: PublishPlan) -> dict[str, Any]:
    return {
        "folder": str(plan.folder),
        "name": plan.name,
        "version": plan.version,
        "kind": plan.kind,
        "repo": plan.repo,
        "url": plan.url,
        "revision": plan.revision,
        "pull_request": plan.pull_request,
        "head": plan.head,
        "new_branch": plan.new_branch,
        "exists": plan.exists,
        "upload": plan.upload,
        "upload_nbytes": plan.upload_nbytes,
        "same": list(plan.same),
        "remove": list(plan.remove),
        "tag": plan.tag,
        "published": plan.published,
        "was_private": plan.was_private,
        "private": plan.private,
        "was_gated": plan.was_gated,
        "gated": plan.gated,
        "findings": [finding_document(found) for found in plan.findings],
        "signature": signatures.document(plan.authenticity),
        "notes": list(plan.notes),
    }


def _facts(plan: PublishPlan, *, done: bool) -> Iterator[tuple[str, str]]:
    """What was done, or would be, for people."""
    where = f" on {plan.revision}" if plan.revision != "main" else ""
    verbs = ("proposed", "propose") if plan.pull_request else ("published", "publish")
    yield verbs[0] if done else f"would {verbs[1]}", f"{plan.name} as {plan.url}{where}"
    if not plan.exists:
        yield "repository", "made" if done else "would be made"
    if plan.new_branch and not plan.published:
        yield "branch", "made" if done else "would be made"
    if plan.published:
        yield "tag", f"{plan.tag} was there already, with the same files"
    else:
        sent = f"{len(plan.upload)} files, {render.size(plan.upload_nbytes)}"
        yield "files", f"{sent}; {len(plan.same)} were there already"
        if plan.remove:
            yield "removing", f"{len(plan.remove)} files of the commit before"
        if plan.pull_request and not done:
            yield "pull request", f"to {plan.revision}"
        if plan.tag is not None:
            yield "tag", plan.tag
    before, after = _seen(plan.was_private), _seen(plan.private)
    yield "seen by", _change(before, after, new=not plan.exists)
    if plan.gated or plan.was_gated:
        before, after = _access(plan.was_gated), _access(plan.gated)
        yield "access", _change(before, after, new=not plan.exists)
    yield "signature", plan.authenticity.text
    for finding in plan.findings:
        yield "warning", str(finding)
    for note in plan.notes:
        yield "note", note


def _seen(private: bool) -> str:
    return "its owner alone" if private else "everybody"


def _access(gated: str | None) -> str:
    words = {"auto": "after agreeing", "manual": "after being let in"}
    return words[gated] if gated else "for all who see it"


def _change(before: str, after: str, *, new: bool = False) -> str:
    return after if new or before == after else f"{after} (before: {before})"
