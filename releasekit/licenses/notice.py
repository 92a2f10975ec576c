"""The NOTICE file of a release: what its licences prescribe, and what its bases' said.

First that, and from what, the model was changed; then each line that a licence prescribes;
then the notices that came with the bases, byte for byte. The same chain gives the same
bytes: there is no date in it.
"""

from __future__ import annotations

from collections.abc import Iterable

from releasekit.licenses.chain import Chain


def assemble(chain: Chain, name: str, notices: Iterable[tuple[str, bytes]]) -> bytes:
    """The NOTICE file.

    Args:
        chain: the release's licences.
        name: what the release is called.
        notices: the bases' own, each with the path that it has in the release.
    """
    lines = [name, ""]
    if chain.bases:
        lines += [
            f"{name} is a modified version of {_bases(chain)}: the weights were changed "
            "by further training.",
            "",
        ]
    prescribed = (grant.notice for grant in chain.grants if grant.notice)
    for line in dict.fromkeys(prescribed):
        lines += [line, ""]
    grants = {(g.of, g.id): g for g in (*chain.bases, *chain.grants)}
    for grant in grants.values():
        of = grant.of or "a base"
        lines.append(f"{of}: {grant.name} ({grant.url})")
    parts = ["\n".join(lines).encode() + b"\n"]
    for path, data in notices:
        end = b"" if data.endswith(b"\n") else b"\n"
        parts.append(f"\n---- {path} ----\n\n".encode() + data + end)
    return b"".join(parts)


def _bases(chain: Chain) -> str:
    names = [
        f"{grant.of or 'a model'}, which is under the {grant.name}" for grant in chain.bases
    ]
    return "; and of ".join(names)
