"""A new key, vouched for by the one that users trust: how a publisher changes keys.

A file of links, the oldest first, one bundle a line. Each is signed by a key, and names
the key that follows it:

    _type          "https://in-toto.io/Statement/v1"
    subject        [{name: "signing key", digest: {sha256: the new key's fingerprint}}]
    predicateType  "urn:releasekit:key-succession:v1"
    predicate      {key: the new key in PEM}

It travels in the releases that the new key signs. Whoever trusts a key of the chain comes
to trust those after it, and none before it. It is of no help against someone who stole the
old key: that takes `releasekit trust remove`, and word from the publisher.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from releasekit import strictjson
from releasekit.errors import FormatError, UsageError
from releasekit.provenance import STATEMENT
from releasekit.received import read_small
from releasekit.signing import bundle
from releasekit.signing.keys import PrivateKey, PublicKey
from releasekit.signing.statement import read_subject
from releasekit.strictjson import Record

#: Most bytes of such a file.
MAX_NBYTES: Final = 1 << 18
#: Most links in it.
MAX_LINKS: Final = 64
_PREDICATE: Final = "urn:releasekit:key-succession:v1"
_SUBJECT: Final = "signing key"


def vouch(old: PrivateKey, new: PublicKey, earlier: bytes = b"") -> bytes:
    """The links `earlier`, and one by which `old` names `new` its successor."""
    document = {
        "_type": STATEMENT,
        "subject": [{"name": _SUBJECT, "digest": {"sha256": new.fingerprint}}],
        "predicateType": _PREDICATE,
        "predicate": {"key": new.pem.decode()},
    }
    return earlier + bundle.sign(json.dumps(document).encode(), old) + b"\n"


def follow(data: bytes, trusted: PublicKey, subject: str) -> list[PublicKey]:
    """The keys that come after a trusted one, in their order; none if it has no successor.

    Raises:
        FormatError: if the file is malformed. Links that do not follow from the trusted key
            are not malformed, but of no account.
    """
    keys = [trusted]
    for where, line in _lines(data, subject):
        link = bundle.parse(line, where)
        if keys[-1].verifies(link.signature, link.message):
            keys.append(_named(link.payload, where))
    return keys[1:]


def last_key(data: bytes, subject: str) -> PublicKey:
    """The key that the last link names, for who makes such a file.

    Raises:
        FormatError: if the file is malformed, or empty, or a link after the first is not
            signed by the key that the one before it names.
    """
    last: PublicKey | None = None
    for where, line in _lines(data, subject):
        link = bundle.parse(line, where)
        if last is not None and not last.verifies(link.signature, link.message):
            raise FormatError(f"{where}: is not signed by the key of the line before")
        last = _named(link.payload, where)
    if last is None:
        raise FormatError(f"{subject}: is empty; expected a link a line")
    return last


def read_links(path: Path) -> bytes:
    """The text of such a file.

    Raises:
        UsageError: if there is none.
        FormatError: if it is too long to be one.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; `releasekit rotate-key` makes one")
    return read_small(path, MAX_NBYTES)


def _lines(data: bytes, subject: str) -> list[tuple[str, bytes]]:
    """The lines, and what messages call each."""
    *lines, rest = data.split(b"\n")
    if rest:
        raise FormatError(
            f"{subject}: line {len(lines) + 1}: expected an end of line, found the end of "
            "the file; it may be cut short"
        )
    if len(lines) > MAX_LINKS:
        raise FormatError(
            f"{subject}: expected at most {MAX_LINKS} links, found {len(lines)}"
        )
    return [(f"{subject}: line {number}", line) for number, line in enumerate(lines, 1)]


def _named(payload: bytes, subject: str) -> PublicKey:
    """The key that a link names."""
    where = f"{subject}: payload"
    root = Record(strictjson.loads(payload, where), where)
    root.choice("_type", (STATEMENT,))
    root.choice("predicateType", (_PREDICATE,))
    _, stated = read_subject(root, where)
    predicate = root.record("predicate")
    root.close()
    key = PublicKey.listed(predicate.text("key"), f"{where}: predicate.key")
    predicate.close()
    if key.fingerprint != stated:
        raise FormatError(
            f"{where}: subject: expected sha256 {key.fingerprint}, that of predicate.key, "
            f"found {stated}"
        )
    return key
