"""Where a release comes from: an in-toto statement with SLSA's provenance, version 1.

    _type          "https://in-toto.io/Statement/v1"
    subject        the release's files, by name and SHA-256
    predicateType  "https://slsa.dev/provenance/v1"
    predicate      buildDefinition: {buildType, externalParameters: the command and what
                   shaped its result, resolvedDependencies: the inputs' files};
                   runDetails: {builder: {id, version}, metadata}

Source: https://slsa.dev/spec/v1.0/provenance.

It is a file of the release, so that the release's signature covers it, and the same inputs
give the same bytes: no path of the machine that made it, no thread count, and no time but
that of SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from releasekit import strictjson
from releasekit.errors import UsageError
from releasekit.names import shown

EPOCH_VARIABLE: Final = "SOURCE_DATE_EPOCH"
#: The type of in-toto statements.
STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://slsa.dev/provenance/v1"
_BUILD_TYPE: Final = "urn:releasekit:build:v1"
_BUILDER: Final = "urn:releasekit"
_LATEST: Final = 253_402_300_799  # the last second that four digits of a year can name


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A file that went in.

    Attributes:
        name: its role and its path in that, such as `base/model.safetensors`.
        sha256: its SHA-256.
        uri: where it can be had, if it came from the Hub: a package URL.
    """

    name: str
    sha256: str
    uri: str | None = None


def pack(
    products: Mapping[str, str],
    materials: Sequence[Material],
    *,
    parameters: Mapping[str, object],
    identities: Mapping[str, str],
    builder: Mapping[str, str],
    epoch: int | None,
) -> bytes:
    """The document.

    Args:
        products: SHA-256 of each file that was made, by its path.
        materials: the files that went in.
        parameters: the command, and its arguments that shape the result.
        identities: of the checkpoints that went in, by their roles.
        builder: versions of the programs that shape the result, by name.
        epoch: seconds since 1970 that stand for the time of making; None to leave it out.
    """
    metadata = {}
    if epoch is not None:
        time = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = {"startedOn": time, "finishedOn": time}
    return strictjson.dumps(
        {
            "_type": STATEMENT,
            "subject": [
                {"name": name, "digest": {"sha256": products[name]}}
                for name in sorted(products)
            ],
            "predicateType": _PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": _BUILD_TYPE,
                    "externalParameters": dict(parameters),
                    "internalParameters": {"identities": dict(identities)},
                    "resolvedDependencies": [_resource(item) for item in materials],
                },
                "runDetails": {
                    "builder": {"id": _BUILDER, "version": dict(builder)},
                    "metadata": metadata,
                },
            },
        }
    )


def read_epoch(value: str | None) -> int | None:
    """What the environment variable SOURCE_DATE_EPOCH says; None if it is not set.

    Raises:
        UsageError: if it is no number of seconds.
    """
    if value is None or value == "":
        return None
    if not (
        value.isascii() and value.isdecimal() and len(value) < 13 and int(value) <= _LATEST
    ):
        raise UsageError(
            f"{EPOCH_VARIABLE}: expected seconds since 1970, found {shown(value, 40)}"
        )
    return int(value)


def _resource(material: Material) -> dict[str, object]:
    resource: dict[str, object] = {"name": material.name}
    if material.uri is not None:
        resource["uri"] = material.uri
    return resource | {"digest": {"sha256": material.sha256}}
