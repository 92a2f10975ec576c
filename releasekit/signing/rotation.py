"""Change a publisher's key: add a link to the file that leads from old keys to new."""

from __future__ import annotations

import os
from pathlib import Path

from releasekit.errors import UsageError
from releasekit.signing.keys import PrivateKey, PublicKey
from releasekit.signing.succession import MAX_LINKS, last_key, read_links, vouch
from releasekit.writing import replace


def rotate(old: PrivateKey, new: PublicKey, out: Path) -> int:
    """Have `old` vouch for `new` in the file `out`, after the links that it has.

    Returns:
        The number of links in it.

    Raises:
        UsageError: if the two are one key, or the links so far do not lead to `old`.
        FormatError: if the file is malformed.
    """
    if old.public == new:
        raise UsageError(f"{new.fingerprint}: is the old key; make a new one with keygen")
    earlier = b""
    if os.path.lexists(out):
        earlier = read_links(out)
        last = last_key(earlier, str(out))
        if last != old.public:
            raise UsageError(
                f"{out}: leads to key {last.fingerprint}, not to the old one, "
                f"{old.public.fingerprint}; name another file"
            )
    links = vouch(old, new, earlier)
    if (count := links.count(b"\n")) > MAX_LINKS:
        raise UsageError(
            f"{out}: has {MAX_LINKS} links already, which is the most that readers take; "
            "name another file, and have users trust the old key anew"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    replace(out, links)
    return count
