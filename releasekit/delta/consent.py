"""Before a model is rebuilt: its licences, and whether the user must accept them.

The terms are read from the release, whose signature was checked: they are part of what is
rebuilt, and its digests cover them. Some licences ask that every user agrees before use;
then nothing is made until somebody has.
"""

from __future__ import annotations

from collections.abc import Callable

from releasekit.delta.release import Release
from releasekit.digest import sha256_hex
from releasekit.errors import IntegrityError, LicenseError
from releasekit.licenses import chain as chains
from releasekit.licenses.chain import CHAIN, Chain, Grant, Kind
from releasekit.manifest import TARGET_FOLDER
from releasekit.received import read_small

#: Whether the terms are accepted: known beforehand, or asked of somebody who is told them.
Consent = bool | Callable[[Chain], bool]


def read_terms(release: Release) -> Chain | None:
    """The licences of the model that a release rebuilds; None if it names none.

    Raises:
        FormatError: if they are malformed.
        IntegrityError: if they are not those that the manifest lists.
    """
    entry = release.manifest.rebuilt.get(CHAIN)
    if entry is None:
        return None
    path = release.folder / TARGET_FOLDER / CHAIN
    if not path.is_file():
        raise IntegrityError(f"{path}: is missing; download the release again")
    document = read_small(path, chains.MAX_NBYTES)
    if sha256_hex(document) != entry.sha256:
        raise IntegrityError(
            f"{path}: is not the file that the release lists; download the release again"
        )
    return chains.parse(document, str(path))


def agree(release: Release, consent: Consent) -> Chain | None:
    """See that the user accepts the terms, where a licence asks for that.

    Args:
        release: what is to be used.
        consent: the user's answer, or asks for it; told of any terms that restrict use.

    Returns:
        The licences; None if the release names none.

    Raises:
        LicenseError: if terms are not accepted.
        FormatError, IntegrityError: as `read_terms`.
    """
    chain = read_terms(release)
    if chain is None or all(grant.free for grant in chain.grants):
        return chain
    accepted = consent if isinstance(consent, bool) else consent(chain)
    strict = to_accept(chain)
    if strict and not accepted:
        texts = [where(release, grant) for grant in strict]
        raise LicenseError(
            f"{release.folder}: {' and '.join(grant.name for grant in strict)} must be "
            f"accepted before the model is used: read {' and '.join(texts)}, then give "
            "--accept-license (in Python: accept_license=True)"
        )
    return chain


def to_accept(chain: Chain) -> list[Grant]:
    """Licences, each once, that every user must accept."""
    return list({grant.id: grant for grant in chain.grants if grant.acceptance}.values())


def where(release: Release, grant: Grant) -> str:
    """Where the text of a licence is."""
    for text in grant.texts:
        # The copy that a rebuild is held to.
        path = release.folder / TARGET_FOLDER / text.path
        if text.kind is Kind.LICENSE and path.is_file():
            return str(path)
    return grant.url
