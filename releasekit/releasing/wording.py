"""What commands' options are called in a `release.toml`.

The steps of a release are what commands do, and say what to do about a failure in terms of
their options, which whoever wrote a `release.toml` did not give.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from releasekit.errors import LicenseError, UsageError

_FIELDS: Final[Mapping[str, str]] = {
    "name": "release.name",
    "version": "release.version",
    "publisher": "release.publisher",
    "target": "release.target",
    "base": "release.base",
    "out": "release.out",
    "exclude": "release.exclude",
    "accept-base": "release.accept_base",
    "base-release": "release.base_release",
    "shard-size": "release.shard_size",
    "dtype": "release.dtype",
    "sign-key": "release.sign_key",
    "passphrase-file": "release.passphrase_file",
    "succession": "release.succession",
    "license": "licenses.license",
    "base-license": "licenses.bases",
    "rebuilt-license": "licenses.rebuilt",
    "license-file": "licenses.files",
    "license-dir": "licenses.folders",
    "teacher": "licenses.teachers",
    "results": "evaluations.model",
    "base-results": "evaluations.base",
    "revision": "hub.revision",
    "gated": "hub.gated",
}
#: What stands in backticks is a command to be run, options and all.
_OPTION: Final = re.compile(r"`[^`]*`|(?<![\w-])--([a-z]+(?:-[a-z]+)*)(?![\w-])")


def in_fields(message: str) -> str:
    """A message with fields of a `release.toml` in place of options."""

    def field(match: re.Match[str]) -> str:
        return _FIELDS.get(match[1] or "", match[0])

    return _OPTION.sub(field, message)


@contextmanager
def telling_fields() -> Iterator[None]:
    """Has errors over what was asked for name fields in place of options."""
    try:
        yield
    except (UsageError, LicenseError) as error:
        told = in_fields(str(error))
        if told == str(error):
            raise
        raise type(error)(told) from None
