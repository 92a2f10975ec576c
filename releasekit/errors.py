"""The one error hierarchy.

Every failure that releasekit can explain is a `ReleaseKitError`. A message names the
subject, what was expected, what was found and the next step, in that order. `OSError`
passes through untouched: it carries its path, and the system's words for it are the
ones that users search for.

    ReleaseKitError
      ├── UsageError           the request itself makes no sense: a path, an option
      ├── FormatError          bytes that are not what their format allows
      ├── BaseMismatchError    a base that is not the one the delta was made from
      ├── IntegrityError       right format, wrong content: a digest or size differs
      ├── SignatureError       not signed by whom it should be, or older than it should be
      ├── LicenseError         terms that were not accepted, or that a release breaks
      └── HubError             the Hugging Face Hub refused, or could not be reached

Exit codes are the command line's concern: see `releasekit.cli.exits`.
"""


class ReleaseKitError(Exception):
    """Base of every error that releasekit raises on purpose."""


class UsageError(ReleaseKitError):
    """The request cannot be carried out as given; nothing was read or written."""


class FormatError(ReleaseKitError):
    """Bytes violate their format. The message carries the full path of the bad field."""


class BaseMismatchError(ReleaseKitError):
    """The given base is not the checkpoint that the delta was made from."""


class IntegrityError(ReleaseKitError):
    """Content differs from its recorded size or digest."""


class SignatureError(ReleaseKitError):
    """Content is not signed by a trusted key, or what was signed is out of date."""


class LicenseError(ReleaseKitError):
    """Terms of a licence were not accepted, or a release does not keep to them."""


class HubError(ReleaseKitError):
    """The Hugging Face Hub refused a request, or could not be reached."""
