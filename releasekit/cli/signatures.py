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
_MAX_PASSPHRASE: Final = 1023  # bytes that OpenSSL takes
_MAX_LINE: Final = 4096

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

downgrade_option: Final = click.option(
    "--allow-downgrade",
    is_flag=True,
    help="Accept an older version than was rebuilt here before.",
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
    pin = click.option(
        "--pin",
        metavar="PUBLISHER",
        help="If the public key proves right, trust it from now on, as PUBLISHER's.",
    )
    return check_options(downgrade_option(pin(command)))


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
    shell: Shell,
    path: Path | None,
    passphrase_file: Path | None,
    *,
    published: Path | None = None,
) -> PrivateKey | None:
    """The private key at `path`, if there is one; its passphrase is read or asked for.

    Neither may lie in the folder that is to be `published`; UsageError.
    """
    refuse_published(path, passphrase_file, published=published)
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


def refuse_published(*secrets: Path | None, published: Path | None) -> None:
    """Refuse secrets in the folder that is to be `published`; UsageError."""
    for secret in secrets:
        if secret and published and secret.resolve().is_relative_to(published.resolve()):
            raise click.UsageError(
                f"{secret}: lies in {published}, and would be published with it; move it "
                "away"
            )


def ask_passphrase(text: str, *, confirm: bool = False) -> bytes | None:
    """Ask on the terminal; None if there is none, or nothing is typed."""
    if sys.stdin is None or not sys.stdin.isatty():  # None: it was closed
        return None
    try:
        typed = click.prompt(
            text,
            hide_input=True,
            default="",
            show_default=False,
            confirmation_prompt=confirm,
            err=True,
        )
    except UnicodeDecodeError:
        raise click.UsageError(
            "the passphrase is no text in this terminal's encoding; give it with "
            "--passphrase-file"
        ) from None
    passphrase = str(typed).encode()
    if len(passphrase) > _MAX_PASSPHRASE:
        raise click.UsageError(
            f"the passphrase is too long: expected at most {_MAX_PASSPHRASE} bytes"
        )
    return passphrase or None


def read_passphrase(path: Path) -> bytes:
    """The first line of a file, without its end."""
    from releasekit.errors import UsageError

    if not path.exists():
        raise UsageError(f"{path}: no such file; expected a passphrase in its first line")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; expected a file with a passphrase")
    with path.open("rb") as file:
        line = file.readline(_MAX_LINE).rstrip(b"\r\n")
    if not line:
        raise UsageError(f"{path}: expected a passphrase in its first line, found none")
    if len(line) > _MAX_PASSPHRASE:
        raise UsageError(
            f"{path}: expected a passphrase of at most {_MAX_PASSPHRASE} bytes"
        )
    return line


def document(found: Authenticity) -> dict[str, Any]:
    """What is known of a signature, as JSON has it."""
    return {
        "status": found.status.value,
        "key": found.key.fingerprint if found.key else None,
        "publisher": found.publisher,
        "warnings": list(found.warnings),
    }
