"""What commands share that sign, or check signatures: options, passphrases, words."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from releasekit.cli.shell import Shell

if TYPE_CHECKING:
    from releasekit.authenticity import Authenticity, Policy
    from releasekit.signing.keys import PrivateKey

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE: Final = click.Path(path_type=Path)

passphrase_option: Final = click.option(
    "--passphrase-file",
    type=_FILE,
    help="File whose first line is the key's passphrase; by default it is asked for.",
)

succession_option: Final = click.option(
    "--succession",
    type=_FILE,
    help="What rotate-key made: the publisher's former keys vouch for this one.",
)


def check_options(command: _F) -> _F:
    """`--public-key` and others: what is asked of a signature."""
    for option in (
        click.option(
            "--require-signature",
            is_flag=True,
            help="Refuse what no trusted key has signed.",
        ),
        click.option(
            "--certificates",
            type=_FILE,
            help="The publisher's root certificates in PEM, for what is signed with a "
            "certificate.",
        ),
        click.option(
            "--public-key",
            type=_FILE,
            help="The publisher's key in PEM, the one that is trusted; by default those "
            "added with `releasekit trust add`.",
        ),
    ):
        command = option(command)
    return command


def use_options(command: _F) -> _F:
    """The same and more, where a release is put to use."""
    for option in (
        click.option(
            "--pin",
            metavar="PUBLISHER",
            help="If the public key proves right, trust it from now on, as PUBLISHER's.",
        ),
        click.option(
            "--allow-downgrade",
            is_flag=True,
            help="Accept an older version than was rebuilt here before.",
        ),
    ):
        command = option(command)
    return check_options(command)


def label_options(command: _F) -> _F:
    """`--name`, `--version`, `--publisher` and a key: how a release is published."""
    for option in (
        succession_option,
        passphrase_option,
        click.option(
            "--sign-key",
            type=_FILE,
            help="Private key in PEM that signs the release; see keygen.",
        ),
        click.option(
            "--publisher",
            help="Whose release it is: a name as organisations on the Hub have.",
        ),
        click.option(
            "--version",
            default="1",
            show_default=True,
            help="Version of the release, such as 1.2: users are kept from taking an older "
            "one for the latest.",
        ),
        click.option("--name", help="Name of the release; by default the model's."),
    ):
        command = option(command)
    return command


def policy_of(shell: Shell, options: dict[str, Any]) -> Policy:
    """The policy that the options say; takes them out of `options`."""
    from releasekit.authenticity import Policy

    names = ("public_key", "certificates", "require_signature", "allow_downgrade", "pin")
    chosen = {name: options.pop(name) for name in names if name in options}
    policy = Policy(**chosen, warn=shell.warn)
    policy.check()
    return policy


def load_key(
    shell: Shell, path: Path | None, passphrase_file: Path | None
) -> PrivateKey | None:
    """The private key at `path`, if there is one; its passphrase is read or asked for."""
    if path is None:
        if passphrase_file is not None:
            raise click.UsageError("--passphrase-file: there is no key to use it with")
        return None
    from releasekit.signing.keys import PrivateKey

    def ask(key: Path) -> bytes | None:
        if passphrase_file is not None:
            return read_passphrase(passphrase_file)
        return ask_passphrase(f"Passphrase of {key}")

    loaded = PrivateKey.load(path, ask)
    if path.is_file() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        shell.warn(f"{path}: others may read this private key; chmod 600 {path}")
    return loaded


def ask_passphrase(text: str, *, confirm: bool = False) -> bytes | None:
    """Ask on the terminal; None if there is none, or nothing is typed."""
    if not sys.stdin.isatty():
        return None
    typed = click.prompt(
        text,
        hide_input=True,
        default="",
        show_default=False,
        confirmation_prompt=confirm,
        err=True,
    )
    return str(typed).encode() or None


def read_passphrase(path: Path) -> bytes:
    """The first line of a file, without its end."""
    from releasekit.errors import UsageError

    with path.open("rb") as file:
        line = file.readline(4096).rstrip(b"\r\n")
    if not line:
        raise UsageError(f"{path}: expected a passphrase in its first line, found none")
    return line


def document(found: Authenticity) -> dict[str, Any]:
    """What is known of a signature, as JSON has it."""
    return {
        "status": found.status.value,
        "key": found.key.fingerprint if found.key else None,
        "publisher": found.publisher,
        "warnings": list(found.warnings),
    }
