"""May a release be used? What it says of itself, against what this user knows.

After its signature was checked (`authenticity`), its manifest is believed as far as that
goes. Two claims of it are held against the trust file: whose it is, and which version.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from releasekit import trust as trusts
from releasekit.authenticity import Authenticity, Policy
from releasekit.errors import ReleaseKitError, SignatureError
from releasekit.manifest import Manifest
from releasekit.trust import Seen
from releasekit.versions import order


def admit(
    found: Authenticity, manifest: Manifest, digest: str, policy: Policy, subject: Path
) -> Authenticity:
    """Check what a release says of itself against what is known; tells the policy's `warn`.

    Args:
        found: whose it is.
        manifest: what it says.
        digest: SHA-256 of the manifest.
        policy: what is asked.
        subject: the release, for messages.

    Raises:
        SignatureError: if it claims to be another publisher's, or is older than one of its
            name and key that was rebuilt here.
    """
    trust = found.trust
    warnings = list(found.warnings)
    check_claim(found, manifest, policy, subject)
    if found.key is None:
        if any(seen.release == manifest.name for seen in trust.seen.values()):
            warnings.append(
                f"{subject}: {manifest.name} was signed when it was rebuilt here before; "
                "ask its publisher why this one is not"
            )
    else:
        keys = [found.key, *found.replaced]
        places = [(key.fingerprint, manifest.name) for key in keys]
        known = [trust.seen[place] for place in places if place in trust.seen]
        for seen in known:
            warnings += _check_version(seen, manifest, digest, policy, subject)
    for warning in warnings:
        policy.tell(warning)
    return replace(found, warnings=tuple(warnings))


def remember(found: Authenticity, manifest: Manifest, digest: str, policy: Policy) -> None:
    """Note in the trust file which version was rebuilt, and keys that were pinned.

    A trust file that cannot be written is no reason to throw the work away: the policy is
    told.
    """
    if found.key is None:
        return
    path = trusts.default_path()
    try:
        with trusts.updating(path) as trust:
            if policy.pin is not None:
                trust.add(policy.pin, found.key)
            for old, new in pairwise([*found.replaced, found.key]):
                trust.supersede(old, new)
            for key in (*found.replaced, found.key):  # one may be asked for by an old key
                trust.see(
                    Seen(
                        key=key.fingerprint,
                        release=manifest.name,
                        version=manifest.version,
                        manifest=digest,
                    )
                )
    except (OSError, ReleaseKitError) as error:
        policy.tell(
            f"{manifest.name} is rebuilt, but {path} could not be updated, so that an "
            f"older version of it would not be noticed: {error}"
        )


def check_claim(
    found: Authenticity, manifest: Manifest, policy: Policy, subject: Path
) -> None:
    """Refuse a release that says to be a trusted publisher's, and is not signed by them.

    But for one whose key the caller names: who has that key was the caller's to find out.

    Raises:
        SignatureError: if it is such a one.
    """
    if policy.public_key is not None or policy.certificates is not None:
        return
    claimed = found.trust.publisher(manifest.publisher) if manifest.publisher else None
    if claimed is None or found.publisher == claimed.name:
        return
    if found.key is not None:
        raise SignatureError(
            f"{subject}: says to be by {claimed.name}, but is signed by a key of "
            f"{found.publisher}: get it from {claimed.name}"
        )
    if claimed.require_signature:
        raise SignatureError(
            f"{subject}: says to be by {claimed.name}, whose releases must be signed, but "
            f"no key of theirs has signed it: get it anew from {claimed.name}"
        )


def _check_version(
    seen: Seen, manifest: Manifest, digest: str, policy: Policy, subject: Path
) -> list[str]:
    """Refuse an older version than one that was seen; warns of one that differs."""
    expected, version = order(seen.version), order(manifest.version)
    if version < expected and not policy.allow_downgrade:
        raise SignatureError(
            f"{subject}: expected version {seen.version} of {manifest.name} or a later "
            f"one, which was rebuilt here before, found {manifest.version}: get the latest "
            "one; to use this one all the same, give --allow-downgrade"
        )
    if version == expected and digest != seen.manifest:
        return [
            f"{subject}: is version {manifest.version} of {manifest.name}, but not the "
            "same as the one of that version that was rebuilt here before; ask its "
            "publisher"
        ]
    return []
