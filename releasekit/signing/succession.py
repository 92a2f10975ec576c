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
from releasekit.signing import bundle
from releasekit.signing.keys import PrivateKey, PublicKey
from releasekit.signing.statement import STATEMENT
from releasekit.strictjson import Record

#: Most bytes of such a file.
MAX_NBYTES: Final = 1 << 18
_MAX_LINKS: Final = 64
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
    *lines, rest = data.split(b"\n")
    if rest:
        raise FormatError(
            f"{subject}: line {len(lines) + 1}: expected an end of line, found the end of "
            "the file; it may be cut short"
        )
    if len(lines) > _MAX_LINKS:
        raise FormatError(
            f"{subject}: expected at most {_MAX_LINKS} links, found {len(lines)}"
        )
    keys = [trusted]
    for number, line in enumerate(lines, 1):
        where = f"{subject}: line {number}"
        link = bundle.parse(line, where)
        if keys[-1].verifies(link.signature, link.message):
            keys.append(_named(link.payload, where))
    return keys[1:]


def last_key(data: bytes, subject: str) -> PublicKey:
    """The key that the last link names, for who makes such a file: nothing is checked.

    Raises:
        FormatError: if the file is malformed, or empty.
    """
    lines = data.splitlines()
    if not lines:
        raise FormatError(f"{subject}: is empty; expected a link a line")
    where = f"{subject}: line {len(lines)}"
    return _named(bundle.parse(lines[-1], where).payload, where)


def read_links(path: Path) -> bytes:
    """The text of such a file.

    Raises:
        UsageError: if there is none.
        FormatError: if it is too long to be one.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; `releasekit rotate-key` makes one")
    with path.open("rb") as file:
        data = file.read(MAX_NBYTES + 1)
    if len(data) > MAX_NBYTES:
        raise FormatError(f"{path}: expected at most {MAX_NBYTES} bytes, found more")
    return data


def _named(payload: bytes, subject: str) -> PublicKey:
    """The key that a link names, whose signature is good."""
    where = f"{subject}: payload"
    root = Record(strictjson.loads(payload, where), where)
    root.choice("_type", (STATEMENT,))
    root.choice("predicateType", (_PREDICATE,))
    root.records("subject")  # repeats what the key itself says
    predicate = root.record("predicate")
    root.close()
    key = PublicKey.parse(predicate.text("key").encode(), f"{where}: predicate.key")
    predicate.close()
    return key
