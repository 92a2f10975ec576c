"""`releasekit release` and `releasekit init`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import released
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, common_options, work_options
from releasekit.cli.signatures import load_key, refuse_published
from releasekit.errors import ReleaseKitError, UsageError
from releasekit.names import shown

if TYPE_CHECKING:
    from releasekit.releasing.draft import Answers
    from releasekit.releasing.file import ReleaseFile
    from releasekit.releasing.sweep import Entry
    from releasekit.releasing.work import Means
    from releasekit.signing.keys import PrivateKey

_FILE = click.Path(path_type=Path)
_RESUME = "run the same command to go on; steps that are done are kept"
# Those of `releasing.steps`, which loads numpy: --help and wrong options are sooner.
_STEPS = ("make", "licenses", "evaluations", "report", "card", "sign", "verify", "publish")


@click.command("release", epilog=EPILOG)
@click.argument("files", type=_FILE, nargs=-1, metavar="[FILE]...")
@click.option(
    "--until",
    type=click.Choice(_STEPS),
    default=_STEPS[-1],
    help="Last step to do; by default publish.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and takes.")
@click.option(
    "--force",
    is_flag=True,
    help="Replace a folder that is in the way, and files on the Hub of something else.",
)
@work_options
@common_options
@click.pass_obj
def command(
    shell: Shell, /, files: tuple[Path, ...], until: str, dry_run: bool, **options: Any
) -> int:
    """Make a whole release from FILE: from the checkpoint to the Hub.

    The steps, in order: make (the delta, or full weights sharded and hashed), licenses,
    evaluations, report, card, sign, verify, publish. One whose inputs have not changed is
    not done again; so run the same command after a change, or after it was stopped, and it
    goes on with the first step that there is something to do for. The same inputs give the
    same bytes. Mistakes that can be known at once are told before anything is made.

    `releasekit init` writes FILE, with all that it may say; by default it is release.toml.
    Of several releases, those on the same base are made side by side, and the base is read
    once; one that fails does not stop the others. They may be in a FILE each, or in one
    FILE that says in [[sweep]] what each has of its own.

    \b
    Examples:
      releasekit init --kind delta --base meta-llama/Llama-2-7b-hf --target my-tune
      releasekit release --dry-run
      releasekit release --until verify
      releasekit release
      releasekit release small.toml large.toml
    """
    from releasekit.releasing.sweep import read_entries
    from releasekit.releasing.work import Means

    means = Means(**options)
    if len(files) <= 1:
        file = files[0] if files else Path("release.toml")
        entry = read_entries(file)[0]
        if entry.number is None:
            _one(shell, file, entry.file, until, means, dry_run=dry_run)
            return 0
    return _several(shell, files or (file,), until, means, dry_run=dry_run)


def _one(
    shell: Shell, file: Path, said: ReleaseFile, until: str, means: Means, *, dry_run: bool
) -> None:
    from releasekit.cli.watching import watcher_of
    from releasekit.releasing.run import plan_release, release
    from releasekit.releasing.wording import telling_fields

    with telling_fields():
        key = _key(shell, file, said)
    shell.resume_hint = _RESUME
    if dry_run:
        result = plan_release(file, key=key, until=until, means=means)
    else:
        shell.note_compiling()
        with ExitStack() as stack:
            watcher = watcher_of(shell, stack)
            result = release(file, key=key, until=until, means=means, watcher=watcher)
    for lack in result.needs.lacks() if result.needs is not None else ():
        shell.warn(lack)
    shell.result(released.document(result), list(released.lines(result)))


def _several(
    shell: Shell, files: tuple[Path, ...], until: str, means: Means, *, dry_run: bool
) -> int:
    from releasekit.cli.watching import watcher_of
    from releasekit.releasing.several import plan_all, release_all

    keys = _Keys(shell)
    shell.resume_hint = _RESUME
    if dry_run:
        several = plan_all(files, keys=keys, until=until, means=means)
    else:
        shell.note_compiling()
        with ExitStack() as stack:
            watcher = watcher_of(shell, stack)
            several = release_all(
                files, keys=keys, until=until, means=means, watcher=watcher
            )
    for lack in (lack for needs in several.needs for lack in needs.lacks()):
        shell.warn(lack)
    told = list(released.lines_of_all(several, verbose=shell.verbose))
    shell.result(released.document_of_all(several), told)
    for error in released.errors_of_all(several):
        shell.fault(ReleaseKitError.__name__, error, always=True)
    return released.code_of_all(several)


class _Keys:
    """Keys that several releases name, each asked for once."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._known: dict[tuple[Path | None, Path | None], PrivateKey | None] = {}

    def __call__(self, entry: Entry) -> PrivateKey | None:
        """The key that a release names; raises UsageError, also for one in its target."""
        said, folder = entry.file, entry.path.parent
        key, secret = (
            (folder / text).resolve() if text is not None else None
            for text in (said.sign_key, said.passphrase_file)
        )
        try:
            refuse_published(key, secret, published=folder / said.target)
            if (key, secret) not in self._known:
                self._known[key, secret] = _key(self._shell, entry.path, said)
        except click.UsageError as error:
            raise UsageError(error.format_message()) from None
        return self._known[key, secret]


def _key(shell: Shell, file: Path, said: ReleaseFile) -> PrivateKey | None:
    """The key that the file names."""
    if said.sign_key is None:
        return None
    folder = file.parent
    secret = said.passphrase_file
    return load_key(
        shell,
        folder / said.sign_key,
        folder / secret if secret is not None else None,
        published=folder / said.target,
    )


@click.command("init", epilog=EPILOG)
@click.argument("file", type=_FILE, default=Path("release.toml"))
@click.option("--kind", type=click.Choice(["delta", "full"]), help="What is published.")
@click.option("--name", help="What it is called.")
@click.option("--target", help="The model to release: a folder.")
@click.option("--base", help="Its base: a path, or org/name@revision on the Hub.")
@click.option("--repo", metavar="ORG/NAME", help="Its name on the Hub.")
@click.option("--license", help="Its licence, as `releasekit licenses list` has them.")
@click.option("--base-license", help="The licence of its base.")
@click.option("--sign-key", help="Private key in PEM; see `releasekit keygen`.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@common_options
@click.pass_obj
def init_command(shell: Shell, /, file: Path, force: bool, **given: str | None) -> None:
    """Write FILE, a release.toml with all that it may say, each with what it means.

    On a terminal, what is not given as an option is asked for; elsewhere it is left for you
    to fill in. Then edit the file, and run `releasekit release`.

    \b
    Examples:
      releasekit init
      releasekit init --kind full --name my-model --target my-model --license apache-2.0
    """
    from releasekit.releasing.draft import Answers, draft
    from releasekit.writing import replace

    if os.path.lexists(file) and not (force and file.is_file()):
        hint = "edit it, or replace it with --force" if file.is_file() else "move it away"
        raise UsageError(f"{file}: exists already; {hint}")
    if not file.parent.is_dir():
        raise UsageError(f"{file.parent}: no such folder; make it first")
    answers = Answers(**given)
    answers.check()
    if sys.stdin is not None and sys.stdin.isatty() and not (shell.json or shell.quiet):
        answers = _asked(answers)
    replace(file, draft(_from(file.parent, answers)))
    missing = list(answers.missing)
    if answers.base is not None and _says_licenses(answers.base):
        missing = [path for path in missing if path != "licenses.bases"]
    lines = [f"{file}: edit it, then run `releasekit release {file} --dry-run`"]
    if missing:
        lines.append(f"to fill in: {', '.join(missing)}")
    shell.result({"file": str(file), "missing": missing}, lines)


_QUESTIONS = {
    "kind": "Publish a delta on a base, or full weights (delta, full)",
    "name": "Name of the release",
    "target": "Folder of the model to release",
    "base": "Its base: a path, or org/name on the Hub",
    "license": "Its licence (see `releasekit licenses list`)",
    "base_license": "The licence of its base",
    "repo": "Its name on the Hub, org/name; nothing to publish it later",
    "sign_key": "Private key to sign with (see `releasekit keygen`); nothing for none",
}


def _asked(answers: Answers) -> Answers:
    """What was given, and what somebody at a terminal answers; nothing leaves it out."""
    from dataclasses import replace

    for name, question in _QUESTIONS.items():
        if getattr(answers, name) is None and _matters(name, answers):
            answer = click.prompt(
                question,
                default="",
                show_default=False,
                value_proc=_checking(name),
                err=True,
            )
            answers = replace(answers, **{name: answer or None})
    return answers


def _matters(name: str, answers: Answers) -> bool:
    """Whether a question is worth asking, after what was answered before it."""
    if name == "base":
        return answers.kind != "full"
    if name != "base_license":
        return True
    return answers.base is not None and not _says_licenses(answers.base)


def _says_licenses(base: str) -> bool:
    """Whether a base that is here names its own licences."""
    from releasekit.licenses.chain import CHAIN

    return (Path(base) / CHAIN).is_file()


def _checking(name: str) -> Callable[[str], str]:
    """Has an answer asked for again if it is none."""

    def check(answer: str) -> str:
        from releasekit.checkpoint.locate import is_on_hub
        from releasekit.releasing.draft import fault_of

        fault = fault_of(name, answer) if answer else None
        if answer and fault is None and name in ("target", "base", "sign_key"):
            there = Path(answer).exists() or (name != "sign_key" and is_on_hub(answer))
            fault = None if there else "no such file or folder"
        if fault is not None:
            raise click.BadParameter(f"{shown(answer)}: {fault}")
        return answer

    return check


def _from(folder: Path, answers: Answers) -> Answers:
    """Answers whose paths are relative to the file's folder, as its reader takes them."""
    from dataclasses import replace

    from releasekit.checkpoint.locate import is_on_hub

    def moved(text: str | None, *, hub: bool = False) -> str | None:
        if text is None or Path(text).is_absolute() or (hub and is_on_hub(text)):
            return text
        return os.path.relpath(text, folder)

    return replace(
        answers,
        target=moved(answers.target, hub=answers.kind == "full"),
        base=moved(answers.base, hub=True),
        sign_key=moved(answers.sign_key),
    )
