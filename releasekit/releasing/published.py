"""Whether a version that was published is on the Hub still.

Somebody may have removed the repository, or moved the tag, and then a release that says
"published" would be wrong. One request tells. It is asked once, and in no way needed: a run
without a network goes by what was noted when the version was published, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from releasekit.errors import FormatError, HubError


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the Hub has of a version.

    Attributes:
        commit: the one that is tagged so; None if none is.
        doubt: why the Hub could not be asked; None if it said.
    """

    commit: str | None = None
    doubt: str | None = None


def look_for(repo: str, tag: str) -> Published:
    """Ask the Hub for a tag of a repository; raises nothing on its account.

    Args:
        repo: organisation and name.
        tag: of the version.
    """
    from releasekit.hub.address import Address
    from releasekit.hub.answers import FaultError
    from releasekit.hub.listing import list_files
    from releasekit.hub.publishing import Repository

    address = Address.of(repo).at(tag)
    try:
        # What is private is not there, for whoever is not logged in.
        Repository(address).require_login()
        return Published(commit=list_files(address, attempts=1).commit)
    except FaultError as error:
        if error.fault.missing is not None:
            return Published()
        return Published(doubt=error.fault.what)
    except HubError:
        return Published(doubt="nobody is logged in")
    except FormatError as error:
        return Published(doubt=str(error))
