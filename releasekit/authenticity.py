"""Is a release its publisher's? Asked before anything in it is believed.

The order is that of every system that gets this right: first the signature, by a key that
the user holds already; then what it covers; and only then the manifest, whose digest it
covers. Keys come from the caller (`Policy.public_key`), from certificates under the
caller's roots, or from the trust file. The key's name in a bundle only says which of these
to try.

A release without a signature, or with one that no trusted key can check, may be used, with
a warning that says so, unless the caller or the trust file asks for more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from releasekit import trust as trusts
from releasekit.checkpoint.locate import hub_owner
from releasekit.digest import sha256_hex
from releasekit.errors import SignatureError, UsageError
from releasekit.manifest import SIGNATURE, SUCCESSION
from releasekit.received import read_small
from releasekit.signing import bundle as bundles
from releasekit.signing import statement as statements
from releasekit.signing import succession
from releasekit.signing.bundle import Bundle
from releasekit.signing.keys import PublicKey
from releasekit.trust import Publisher, Trust

_LOGGER: Final = logging.getLogger("releasekit")
_GET_KEY: Final = (
    "get the publisher's key from where you would get their word, and give it with "
    "--public-key, or keep it with `releasekit trust add`"
)


class Status(Enum):
    """What is known of a signature."""

    SIGNED = "signed"  #: by a trusted key
    UNCHECKED = "unchecked"  #: by some key, none of which is trusted here
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a caller asks of signatures.

    Attributes:
        public_key: PEM file of the one key that is trusted; by default those in the trust
            file.
        certificates: PEM file of certificates, under one of which the signer's must be.
        require_signature: refuse what no trusted key signed.
        allow_downgrade: accept an older version than one that was rebuilt here.
        pin: trust `public_key` from now on, as this publisher's, if it proves right.
        owner: organisation on the Hub that the release came from, where that does not show
            in its path.
        warn: is told at once what is no error, but ought to be known; by default that is
            logged as a warning of the logger `releasekit`.
    """

    public_key: str | Path | None = None
    certificates: str | Path | None = None
    require_signature: bool = False
    allow_downgrade: bool = False
    pin: str | None = None
    owner: str | None = None
    warn: Callable[[str], None] | None = None

    @property
    def demands(self) -> bool:
        """Whether only a good signature will do."""
        named = self.public_key is not None or self.certificates is not None
        return self.require_signature or named

    def tell(self, warning: str) -> None:
        """Say what is no error, but ought to be known."""
        if self.warn is None:
            _LOGGER.warning("%s", warning)
        else:
            self.warn(warning)

    def check(self) -> None:
        """Refuse wishes that contradict each other, as UsageError."""
        if self.public_key is not None and self.certificates is not None:
            raise UsageError(
                "a public key and certificates: expected one of them; leave the other out"
            )
        if self.pin is not None and self.public_key is None:
            raise UsageError("--pin: pins the key that --public-key names; give that too")

    def of(self, release: str | Path) -> Policy:
        """This policy for a release as the caller names it: a path, or on the Hub."""
        if self.owner is not None:
            return self
        return replace(self, owner=hub_owner(release))


#: Trusts the keys in the trust file; what is not signed may be used.
DEFAULT_POLICY: Final = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticity:
    """What is known of whose a folder is.

    Attributes:
        status: whether a trusted key signed it.
        key: the key that did; None unless it is signed.
        publisher: whom the trust file knows that key as; None if it does not.
        files: SHA-256 of each signed file by its path; None unless it is signed.
        path: the signature's file; None if there is none.
        replaced: keys whose successor signed, each followed by the one after it.
        warnings: what ought to be known.
        trust: what the trust file said of it.
    """

    status: Status
    trust: Trust
    key: PublicKey | None = None
    publisher: str | None = None
    files: Mapping[str, str] | None = None
    path: Path | None = None
    replaced: tuple[PublicKey, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The same in a line, for people."""
        if self.key is not None:
            return f"signed by {self.publisher or 'key'} {self.key.fingerprint}"
        return "not checked" if self.status is Status.UNCHECKED else "none"


def authenticate(
    folder: Path, policy: Policy, signature: Path | None = None
) -> Authenticity:
    """Check the signature of a folder, but not yet the files that it covers.

    Args:
        folder: a release, or any folder that was signed.
        policy: what is asked.
        signature: the bundle; by default `model.sig` in the folder.

    Raises:
        SignatureError: if it is not as the policy wants it, or no key of the publisher's
            made it.
        FormatError: if the bundle, a key or the trust file is malformed.
        UsageError: if a file of the policy's is missing, or no key.
    """
    policy.check()
    path = signature or folder / SIGNATURE
    trust = trusts.load(trusts.default_path())
    known = trust.publisher(policy.owner) if policy.owner else None
    if signature is None and not path.is_file():
        return _unsigned(folder, policy, known, trust)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a signature")
    bundle = bundles.parse(read_small(path, bundles.MAX_NBYTES), str(path))
    _refuse_proof_of_itself(folder, policy)
    keys = _trusted(bundle, policy, trust, known, path)
    chain = _signer(bundle, keys, folder, path)
    if chain is None:
        spent = _superseded(bundle, trust)
        if policy.demands or known or spent or _is_named(bundle, keys):
            raise SignatureError(_not_by(bundle, keys, policy, known, trust, path))
        warning = f"{path}: was not checked: no key is trusted that made it; {_GET_KEY}"
        return Authenticity(
            status=Status.UNCHECKED, trust=trust, path=path, warnings=(warning,)
        )
    if bundle.hint is not None and bundle.hint != chain[-1].hint:
        raise SignatureError(
            f"{path}: names another key than made it: the file is damaged or was changed; "
            "get the release anew from its publisher"
        )
    owner = trust.owner(chain[0])
    if policy.pin is not None:
        _refuse_pin(policy.pin, owner, chain, trust)
    return Authenticity(
        status=Status.SIGNED,
        trust=trust,
        key=chain[-1],
        publisher=policy.pin or (owner.name if owner else None),
        files=statements.parse(bundle.payload, str(path)).files,
        path=path,
        replaced=tuple(chain[:-1]),
        warnings=tuple(_on_succession(chain, trust, path)),
    )


def refuse_unsigned(delta: str | Path, policy: Policy) -> None:
    """Refuse what cannot be signed as a release is, where a signature is wanted.

    Whoever can take a signature away can take the format away, too.

    Raises:
        SignatureError: if the policy, or the trust file, wants one.
    """
    if policy.owner is None and not os.path.lexists(delta):
        return  # for whoever opens it to say
    what = f"{delta}: is another tool's delta, which is not signed as a release is"
    if policy.demands:
        raise SignatureError(
            f"{what}; if its publisher signed the files, check them with `releasekit "
            "verify`"
        )
    trust = trusts.load(trusts.default_path())
    known = trust.publisher(policy.owner) if policy.owner else None
    if known is not None and known.require_signature:
        raise SignatureError(
            f"{what}, and releases of {known.name} must be: get it anew from its publisher"
        )


def _refuse_proof_of_itself(folder: Path, policy: Policy) -> None:
    for proof in (policy.public_key, policy.certificates):
        if proof is not None and Path(proof).resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"{proof}: lies in the release that it is to prove, where whoever made "
                "that may have put it: get the publisher's key from where you would get "
                "their word"
            )


def _trusted(
    bundle: Bundle, policy: Policy, trust: Trust, known: Publisher | None, path: Path
) -> list[PublicKey]:
    """The keys that may have made the signature; none of them is from the bundle alone."""
    if policy.certificates is not None:
        from releasekit.signing import chains

        roots = chains.load_roots(Path(policy.certificates))
        if not bundle.certificates:
            raise SignatureError(
                f"{path}: carries no certificates; give the key with --public-key"
            )
        return [chains.key_of(bundle.certificates, roots, str(path))]
    if policy.public_key is not None:
        return [PublicKey.load(policy.public_key)]
    if known is not None:
        return known.keys
    return [key for publisher in trust.publishers for key in publisher.keys]


def _signer(
    bundle: Bundle, keys: list[PublicKey], folder: Path, path: Path
) -> list[PublicKey] | None:
    """The trusted key that signed, or one and its successors, the last of which did."""
    for key in keys:
        if key.verifies(bundle.signature, bundle.message):
            return [key]
    links = folder / SUCCESSION
    if keys and links.is_file():
        data = succession.read_links(links)
        for key in keys:
            later = succession.follow(data, key, str(links))
            for at, successor in enumerate(later):
                if successor.verifies(bundle.signature, bundle.message):
                    # The new key must have agreed: else anybody could claim it as theirs.
                    signed = statements.parse(bundle.payload, str(path)).files
                    if signed.get(SUCCESSION) == sha256_hex(data):
                        return [key, *later[: at + 1]]
    return None


def _is_named(bundle: Bundle, keys: list[PublicKey]) -> bool:
    """Whether a bundle claims to be by one of these keys."""
    return any(key.hint == bundle.hint for key in keys)


def _superseded(bundle: Bundle, trust: Trust) -> Publisher | None:
    """The publisher with one of whose former keys a bundle is signed."""
    for publisher in trust.publishers:
        for key in publisher.superseded:
            if key.verifies(bundle.signature, bundle.message):
                return publisher
    return None


def _refuse_pin(
    pin: str, owner: Publisher | None, chain: list[PublicKey], trust: Trust
) -> None:
    """Refuse to pin what could not be kept, before the work rather than after it."""
    if owner is not None and owner is not trust.publisher(pin):
        raise UsageError(
            f"--pin {pin}: key {chain[0].fingerprint} is trusted as {owner.name}'s; leave "
            "out --pin, or remove that one first with `releasekit trust remove`"
        )
    trust.add(pin, chain[-1])


def _on_succession(chain: list[PublicKey], trust: Trust, path: Path) -> Iterator[str]:
    """What ought to be known of keys that others followed."""
    for publisher in trust.publishers:
        if chain[0] in publisher.superseded:
            yield (
                f"{path}: key {chain[0].fingerprint}, which was given, is a former one of "
                f"{publisher.name}'s: a later one has replaced it"
            )
    if len(chain) > 1:
        yield (
            f"{path}: key {chain[0].fingerprint} was followed by {chain[-1].fingerprint}, "
            "which it vouches for; the new one is to be trusted from now on"
        )


def _unsigned(
    folder: Path, policy: Policy, known: Publisher | None, trust: Trust
) -> Authenticity:
    """What is known of a folder without a signature; SignatureError if one is wanted."""
    why = None
    if policy.public_key is not None or policy.certificates is not None:
        why = "a key was given to check it with"
    elif known is not None and known.require_signature:
        why = f"releases of {known.name} must be"
    elif policy.require_signature:
        why = "a signature is required"
    if why is not None:
        raise SignatureError(
            f"{folder}: is not signed, and {why}: get it anew from its publisher, and "
            f"{SIGNATURE} with it"
        )
    warning = (
        f"{folder}: is not signed, so nothing shows whose it is; ask its publisher for a "
        "signed one"
    )
    return Authenticity(status=Status.UNSIGNED, trust=trust, warnings=(warning,))


def _not_by(
    bundle: Bundle,
    keys: list[PublicKey],
    policy: Policy,
    known: Publisher | None,
    trust: Trust,
    path: Path,
) -> str:
    """Why no trusted key has made a signature."""
    if _is_named(bundle, keys):
        return (
            f"{path}: is not what its key signed: the file is damaged or was changed; get "
            "the release anew from its publisher"
        )
    if (former := _superseded(bundle, trust)) is not None:
        return (
            f"{path}: is signed by a key of {former.name} that a later one has replaced; "
            "get a release that is signed by that one"
        )
    if policy.public_key is not None:
        whose = f"that of {policy.public_key}, {keys[0].fingerprint}"
    elif policy.certificates is not None:
        whose = "that of its certificates"
    elif known is not None:
        whose = f"one of {known.name}"
    else:
        whose = "one that is trusted here"
    return (
        f"{path}: is signed by another key than {whose}: somebody else may have made it; "
        f"{_GET_KEY}"
    )
