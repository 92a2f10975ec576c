"""What a signature covers: every file of a folder, by name and SHA-256.

An in-toto Statement v1 with the predicate of OpenSSF Model Signing v1.0:

    _type          "https://in-toto.io/Statement/v1"
    subject        [{name, digest: {sha256}}]: SHA-256 over all digests, one after another
    predicateType  "https://model_signing/signature/v1.0"
    predicate      {serialization: {method: "files", hash_type: "sha256", allow_symlinks,
                   ignore_paths}, resources: [{name, algorithm: "sha256", digest}]}

Source: the docstring of `Payload` in sigstore/model-transparency, model_signing 1.1.1,
whose command line reads no other method or hash than these.

`ignore_paths` is written for that tool, and never honoured here: it would let whoever
signs, by design or by mistake, leave out weights that a loader then reads. Names are held
to the rules for paths of a release, since each will be joined to a folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from releasekit import strictjson
from releasekit.digest import sha256_hex
from releasekit.errors import FormatError
from releasekit.names import refuse_clashes, safe_path, shown
from releasekit.provenance import STATEMENT
from releasekit.strictjson import Record

_PREDICATE: Final = "https://model_signing/signature/v1.0"
#: What the stock tool passes over unless told otherwise: they can be no resources.
GIT: Final = (".git", ".gitattributes", ".github", ".gitignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The files of a folder, as they were signed.

    Attributes:
        name: what the signer called the folder.
        files: SHA-256 of each file by its path; at least one.
    """

    name: str
    files: Mapping[str, str]

    def pack(self, ignored: Iterable[str] = ()) -> bytes:
        """The document, the same for the same files; the inverse of `parse`.

        Args:
            ignored: paths beside the files that the stock tool is to pass over.

        Raises:
            FormatError: if `parse` would refuse it.
        """
        names = sorted(self.files)
        document = {
            "_type": STATEMENT,
            "subject": [
                {
                    "name": self.name,
                    "digest": {"sha256": _root(self.files[n] for n in names)},
                }
            ],
            "predicateType": _PREDICATE,
            "predicate": {
                "serialization": {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": False,
                    "ignore_paths": sorted(ignored),
                },
                "resources": [
                    {"name": name, "algorithm": "sha256", "digest": self.files[name]}
                    for name in names
                ],
            },
        }
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        parse(data, "model.sig")
        return data


def parse(payload: bytes, subject: str) -> Statement:
    """Read a statement whose signature was found good.

    Raises:
        FormatError: with the path of the field that is wrong.
    """
    where = f"{subject}: payload"
    root = Record(strictjson.loads(payload, where), where)
    root.choice("_type", (STATEMENT,))
    root.choice("predicateType", (_PREDICATE,))
    name, stated = read_subject(root, where)
    predicate = root.record("predicate")
    serialization = predicate.record("serialization")
    serialization.choice("method", ("files",))
    serialization.choice("hash_type", ("sha256",))
    root.close()  # not the predicate: version 1.0 has verifiers ignore what else it holds
    files: dict[str, str] = {}
    for record in predicate.records("resources"):
        path = safe_path(record.text("name"), where)
        record.choice("algorithm", ("sha256",))
        digest = record.hex_digest("digest")
        record.close()
        if path in files:
            raise FormatError(f"{where}: path {shown(path)} appears twice")
        files[path] = digest
    if not files:
        raise FormatError(f"{where}: predicate.resources: expected at least one file")
    refuse_clashes(files, where)
    if (found := _root(files.values())) != stated:
        raise FormatError(
            f"{where}: subject: expected sha256 {found}, that of the digests listed, found "
            f"{stated}"
        )
    return Statement(name=name, files=files)


def read_subject(root: Record, where: str) -> tuple[str, str]:
    """Name and SHA-256 of the one subject of an in-toto statement."""
    subjects = root.records("subject")
    if len(subjects) != 1:
        raise FormatError(f"{where}: subject: expected one, found {len(subjects)}")
    name, digest = subjects[0].text("name"), subjects[0].record("digest")
    stated = digest.hex_digest("sha256")
    digest.close()
    subjects[0].close()
    return name, stated


def _root(digests: Iterable[str]) -> str:
    return sha256_hex(b"".join(map(bytes.fromhex, digests)))
