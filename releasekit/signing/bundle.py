"""The file that carries a signature: a Sigstore bundle 0.3 around a DSSE envelope.

    {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial": {"publicKey": {"hint"}, "tlogEntries": []},
     "dsseEnvelope": {"payload", "payloadType", "signatures": [{"sig", "keyid"}]}}

Sources: sigstore/protobuf-specs, `sigstore_bundle.proto`; secure-systems-lab/dsse,
`protocol.md`, for PAE, the bytes that are signed.

The hint says which key to look for among those that are trusted, and no more.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Final

from releasekit import strictjson
from releasekit.errors import FormatError, UsageError
from releasekit.signing.keys import PrivateKey
from releasekit.strictjson import Record

_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
#: Most bytes of a bundle: one over 100,000 files takes two thirds of it.
MAX_NBYTES: Final = 1 << 25
_MAX_CERTIFICATES: Final = 8
_MAX_ENTRIES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A signature with what it signs; nothing of it is proved.

    Attributes:
        payload: the bytes that were signed, by way of `message`.
        signature: the signature, in DER.
        hint: which key made it: the SHA-256 of its PEM; None if it does not say.
        certificates: certificates in DER, the signer's first; none with a bare key.
    """

    payload: bytes
    signature: bytes
    hint: str | None
    certificates: tuple[bytes, ...] = ()

    @property
    def message(self) -> bytes:
        """What the signature is over: the type and the payload, with their lengths."""
        return _pre_authentication_encoding(self.payload)


def sign(payload: bytes, key: PrivateKey) -> bytes:
    """A bundle with `payload` signed by `key`; where possible, always the same one."""
    signature = key.sign(_pre_authentication_encoding(payload))
    document = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": key.public.hint},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    # Without a byte that could be another: what was changed is seen to be.
    data = json.dumps(document, separators=(",", ":")).encode()
    if len(data) > MAX_NBYTES:
        raise UsageError(
            f"the signature would take {len(data)} bytes, and readers take at most "
            f"{MAX_NBYTES}: sign fewer files"
        )
    return data


def parse(data: bytes, subject: str) -> Bundle:
    """Read a bundle, which need not be genuine.

    Raises:
        FormatError: with the path of the field that is wrong.
    """
    root = Record(strictjson.loads(data, subject), subject)
    root.choice("mediaType", (_MEDIA_TYPE,))
    hint, certificates = _material(root.record("verificationMaterial"), subject)
    envelope = root.record("dsseEnvelope")
    root.close()
    envelope.choice("payloadType", (_PAYLOAD_TYPE,))
    payload = envelope.base64("payload")
    if (count := envelope.count("signatures")) != 1:
        raise FormatError(
            f"{subject}: dsseEnvelope.signatures: expected one, found {count}"
        )
    (record,) = envelope.records("signatures")
    envelope.close()
    signature = record.base64("sig")
    record.optional_text("keyid")
    record.close()
    return Bundle(
        payload=payload, signature=signature, hint=hint, certificates=certificates
    )


def _material(material: Record, subject: str) -> tuple[str | None, tuple[bytes, ...]]:
    """The key's hint, or the certificates."""
    if material.has("tlogEntries"):
        # A log proves when, not whose, so it is not used here.
        if (count := material.count("tlogEntries")) > _MAX_ENTRIES:
            raise FormatError(
                f"{subject}: verificationMaterial.tlogEntries: expected at most "
                f"{_MAX_ENTRIES}, found {count}"
            )
        material.records("tlogEntries")
    key = material.optional_record("publicKey")
    chain = material.optional_record("x509CertificateChain")
    if key is not None or chain is not None:
        material.close()
    if (key is None) == (chain is None):
        raise FormatError(
            f"{subject}: verificationMaterial: expected a publicKey, or an "
            "x509CertificateChain; a signature by a Sigstore identity is not supported: "
            "verify it with the model_signing tool"
        )
    if chain is None:
        assert key is not None
        hint = key.optional_text("hint")
        key.close()
        return hint or None, ()
    if not 0 < (count := chain.count("certificates")) <= _MAX_CERTIFICATES:
        raise FormatError(
            f"{subject}: verificationMaterial.x509CertificateChain.certificates: expected "
            f"1 to {_MAX_CERTIFICATES}, found {count}"
        )
    records = chain.records("certificates")
    chain.close()
    found = []
    for record in records:
        found.append(record.base64("rawBytes"))
        record.close()
    return None, tuple(found)


def _pre_authentication_encoding(payload: bytes) -> bytes:
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
