"""The trust file: whose keys this user trusts, and which releases were seen.

    format      "releasekit-trust/1"
    publishers  [{name, require_signature, keys: [PEM], superseded: [PEM]}]
    seen        [{key: fingerprint, release: name, version, manifest: sha256}]

It lies in the user's configuration folder, `$XDG_CONFIG_HOME/releasekit/trust.json`, or
`~/.config/…`. `seen` holds the latest version of each release that was rebuilt, by the key
that signed it: an older one that turns up later may be an old copy that somebody passes off
for the newest.

Changes are made under a lock, to a new file that then takes the old one's place.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from releasekit import strictjson
from releasekit.errors import FormatError, UsageError
from releasekit.names import is_publisher, shown
from releasekit.received import read_open
from releasekit.signing.keys import PublicKey
from releasekit.strictjson import Record
from releasekit.versions import EXPECTED, is_version, order
from releasekit.writing import replace as replace_file

_FORMAT: Final = "releasekit-trust/1"
_MAX_NBYTES: Final = 1 << 24


@dataclass(kw_only=True)
class Publisher:
    """Somebody whose releases are trusted.

    Attributes:
        name: what the user calls them; an organisation on the Hub if it has this name.
        keys: theirs; what any of them signed is theirs.
        superseded: keys that others took the place of; no longer trusted.
        require_signature: whether releases of theirs must be signed.
    """

    name: str
    keys: list[PublicKey]
    superseded: list[PublicKey] = field(default_factory=list)
    require_signature: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The latest version of a release that was rebuilt here.

    Attributes:
        key: fingerprint of the key that signed it.
        release: its name.
        version: its version.
        manifest: SHA-256 of its manifest.
    """

    key: str
    release: str
    version: str
    manifest: str


@dataclass(kw_only=True)
class Trust:
    """What the trust file says.

    Attributes:
        path: where it is, or would be.
        publishers: who is trusted.
        seen: what was seen, by key and release.
    """

    path: Path
    publishers: list[Publisher] = field(default_factory=list)
    seen: dict[tuple[str, str], Seen] = field(default_factory=dict)

    def publisher(self, name: str) -> Publisher | None:
        """A publisher by name, in whatever case; None if there is none."""
        wanted = name.casefold()
        found = (p for p in self.publishers if p.name.casefold() == wanted)
        return next(found, None)

    def owner(self, key: PublicKey) -> Publisher | None:
        """The publisher whose key it is; None if it is nobody's."""
        return next((p for p in self.publishers if key in p.keys), None)

    def add(
        self, name: str, key: PublicKey, *, require_signature: bool = False
    ) -> Publisher:
        """Trust a key as that of a publisher, who may have others already.

        Raises:
            UsageError: if the name cannot be one, or the key is somebody else's.
        """
        if not is_publisher(name):
            raise UsageError(
                f"publisher {shown(name)}: expected letters, digits and . _ -, as names of "
                "organisations on the Hub have"
            )
        owner = self.owner(key)
        publisher = self.publisher(name)
        if owner is not None and owner is not publisher:
            raise UsageError(
                f"{key.fingerprint}: is trusted as a key of {owner.name}; remove it there "
                f"first: releasekit trust remove {owner.name}"
            )
        if publisher is None:
            publisher = Publisher(name=name, keys=[])
            self.publishers.append(publisher)
        if key not in publisher.keys:
            publisher.keys.append(key)
        publisher.superseded = [old for old in publisher.superseded if old != key]
        publisher.require_signature |= require_signature
        return publisher

    def remove(self, name: str) -> Publisher:
        """Trust a publisher no longer; what was seen of theirs stays.

        Raises:
            UsageError: if there is none of that name.
        """
        publisher = self.publisher(name)
        if publisher is None:
            known = ", ".join(p.name for p in self.publishers) or "none"
            raise UsageError(
                f"{self.path}: has no publisher {shown(name)}; it has: {known}"
            )
        self.publishers.remove(publisher)
        return publisher

    def supersede(self, old: PublicKey, new: PublicKey) -> None:
        """Trust a key in place of another, for the same publisher.

        If another publisher has the new key already, it stays theirs.
        """
        publisher = self.owner(old)
        if publisher is not None and old != new:
            if self.owner(new) is None:
                publisher.keys.append(new)
            publisher.keys.remove(old)
            publisher.superseded = [
                *(key for key in publisher.superseded if key not in (old, new)),
                old,
            ]
        for seen in list(self.seen.values()):
            if seen.key == old.fingerprint:
                self.see(replace(seen, key=new.fingerprint))

    def see(self, seen: Seen) -> None:
        """Remember a release, unless a later version of it is known."""
        known = self.seen.get((seen.key, seen.release))
        if known is None or order(known.version) <= order(seen.version):
            self.seen[seen.key, seen.release] = seen

    def pack(self) -> bytes:
        """The document; the inverse of `parse`."""
        return strictjson.dumps(
            {
                "format": _FORMAT,
                "publishers": [
                    {
                        "name": publisher.name,
                        "require_signature": publisher.require_signature,
                        "keys": [key.pem.decode() for key in publisher.keys],
                        "superseded": [key.pem.decode() for key in publisher.superseded],
                    }
                    for publisher in self.publishers
                ],
                "seen": [
                    {
                        "key": seen.key,
                        "release": seen.release,
                        "version": seen.version,
                        "manifest": seen.manifest,
                    }
                    for _, seen in sorted(self.seen.items())
                ],
            }
        )


def default_path() -> Path:
    """Where the trust file of this user is."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    # A relative path is to be ignored, says the XDG Base Directory Specification.
    if not os.path.isabs(config):
        # Without a home, where one at the root would have it: others may not write there.
        home = os.path.expanduser("~")
        config = os.path.join(home if os.path.isabs(home) else "/", ".config")
    return Path(config) / "releasekit" / "trust.json"


def load(path: Path) -> Trust:
    """Read a trust file; one that is not there trusts nobody.

    Raises:
        FormatError: if it is malformed.
        UsageError: if others than its owner may write to it.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = read_open(file, _MAX_NBYTES)
    except (FileNotFoundError, NotADirectoryError):
        return Trust(path=path)
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others or status.st_uid not in (0, os.geteuid()):
        raise UsageError(
            f"{path}: others may write to it, so that it proves nothing: look at it with "
            f"`releasekit trust list`, once it is yours alone: `chown $USER {path}`, "
            f"`chmod 600 {path}`"
        )
    return parse(data, path)


@contextmanager
def updating(path: Path) -> Iterator[Trust]:
    """A trust file to change, which is written if the block ends without an error.

    Raises as `load`, and OSError if the file cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link to it stays one
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(path.with_name(f"{path.name}.lock"), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        trust = load(path)
        before = trust.pack()
        yield trust
        if (data := trust.pack()) != before:
            replace_file(path, data, 0o600)
    finally:
        os.close(lock)


def parse(data: bytes, path: Path) -> Trust:
    """Read the text of a trust file.

    Raises:
        FormatError: with the path of the field that is wrong.
    """
    subject = str(path)
    root = Record(strictjson.loads(data, subject), subject)
    root.choice("format", (_FORMAT,))
    trust = Trust(path=path)
    for index, record in enumerate(root.records("publishers")):
        where = f"{subject}: publishers[{index}]"
        publisher = Publisher(
            name=record.text("name"),
            require_signature=record.boolean("require_signature"),
            keys=_keys(record, "keys", where),
            superseded=_keys(record, "superseded", where),
        )
        record.close()
        if not is_publisher(publisher.name) or trust.publisher(publisher.name):
            raise FormatError(
                f"{subject}: publishers: {shown(publisher.name)} is no name, or stands "
                "twice"
            )
        if any(trust.owner(key) for key in publisher.keys):
            raise FormatError(
                f"{subject}: publishers: a key of {publisher.name} is another's as well"
            )
        trust.publishers.append(publisher)
    for record in root.records("seen"):
        seen = Seen(
            key=record.hex_digest("key"),
            release=record.text("release"),
            version=record.text("version"),
            manifest=record.hex_digest("manifest"),
        )
        record.close()
        if not is_version(seen.version):
            raise FormatError(
                f"{subject}: seen: version: expected {EXPECTED}, found "
                f"{shown(seen.version)}"
            )
        if (seen.key, seen.release) in trust.seen:
            raise FormatError(f"{subject}: seen: {shown(seen.release)} stands twice")
        trust.seen[seen.key, seen.release] = seen
    root.close()
    return trust


def _keys(record: Record, field: str, where: str) -> list[PublicKey]:
    return [
        PublicKey.listed(text, f"{where}.{field}[{index}]")
        for index, text in enumerate(record.texts(field))
    ]
