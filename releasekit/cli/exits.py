"""The one map from errors to exit codes, and the text of it that each help ends with."""

from __future__ import annotations

from typing import Final

from releasekit.errors import (
    BaseMismatchError,
    FormatError,
    HubError,
    IntegrityError,
    LicenseError,
    ReleaseKitError,
    SignatureError,
    UsageError,
)

INTERRUPTED: Final = 130
FAILED: Final = 1

#: Most specific first: the first class that an error is an instance of decides.
EXIT_CODES: Final[dict[type[ReleaseKitError], int]] = {
    UsageError: 2,
    FormatError: 3,
    BaseMismatchError: 4,
    IntegrityError: 5,
    SignatureError: 6,
    LicenseError: 7,
    HubError: 8,
    ReleaseKitError: FAILED,
}

EPILOG: Final = """\b
Exit codes:
  0    done, everything as it should be
  1    failed for another reason, such as a full disk
  2    wrong usage: a path, an option, or an output that exists
  3    a file is malformed
  4    the base is not the one that the delta was made with
  5    a file is damaged, missing or unexpected
  6    not signed by a trusted key, or older than what was seen before
  7    a licence must be accepted first, or a release breaks one
  8    the Hugging Face Hub refused, or could not be reached
  130  interrupted; nothing half-made was left under the output's name
"""


def exit_code(error: ReleaseKitError) -> int:
    """The exit code of an error."""
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
