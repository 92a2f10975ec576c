"""Bundles that carry certificates: whose key is it that signed?

pyca/cryptography checks the chain up to the roots that the user names. There are no
default roots: those of the system vouch for web servers, not for who publishes a model.
Which of the holders of certificates under a root signed is not asked, so the root should
be the publisher's own.

The chain is judged as of the first moment at which the signer's certificate was valid, as
the stock tool does: a bundle does not prove when it was made, and models outlive
certificates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from releasekit.errors import FormatError, SignatureError, UsageError
from releasekit.signing.keys import CURVES, PublicKey

_MAX_NBYTES: Final = 1 << 22
_MAX_DEPTH: Final = 8
_PURPOSES: Final = {
    ExtendedKeyUsageOID.CODE_SIGNING,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}
#: What reading a certificate raises; not all of it is documented.
_MALFORMED: Final = (
    *(TypeError, ValueError, UnsupportedAlgorithm, x509.DuplicateExtension),
    *(x509.InvalidVersion, x509.UnsupportedGeneralNameType),
    KeyError,  # of the number of a TLS feature that is none
)


def load_roots(path: Path) -> list[x509.Certificate]:
    """Read trusted certificates from a PEM file.

    Raises:
        UsageError: if there is no such file.
        FormatError: if it holds no certificates.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected certificates in PEM")
    with path.open("rb") as file:
        data = file.read(_MAX_NBYTES + 1)
    try:
        if len(data) <= _MAX_NBYTES:
            return x509.load_pem_x509_certificates(data)
    except _MALFORMED:
        pass
    raise FormatError(
        f"{path}: expected certificates in PEM, of {_MAX_NBYTES} bytes at most"
    )


def key_of(
    certificates: Sequence[bytes], roots: Sequence[x509.Certificate], subject: str
) -> PublicKey:
    """The signer's key, once its certificates lead to a root.

    Args:
        certificates: in DER, the signer's first.
        roots: certificates that are trusted.
        subject: the file that they come from; begins every message.

    Raises:
        FormatError: if a certificate is malformed.
        SignatureError: if they lead to none of the roots, or may not sign.
    """
    try:
        signer, *others = map(x509.load_der_x509_certificate, certificates)
        if not _may_sign(signer):
            raise SignatureError(
                f"{subject}: the signer's certificate is not one for signatures: expected "
                "the key usage digitalSignature"
            )
        # The defaults are those for web servers. They fit for the certificates above the
        # signer's, but for what these may be used for.
        verifier = (
            PolicyBuilder()
            .store(Store(list(roots)))
            .time(signer.not_valid_before_utc)
            .max_chain_depth(_MAX_DEPTH)
            .extension_policies(
                ca_policy=_for_signing(ExtensionPolicy.webpki_defaults_ca()),
                ee_policy=_for_signing(ExtensionPolicy.permit_all()),
            )
            .build_client_verifier()
        )
        verifier.verify(signer, others)
        key = signer.public_key()
    except VerificationError as error:
        reason = str(error).splitlines()[0]
        raise SignatureError(
            f"{subject}: its certificates do not lead to one that is trusted: {reason}"
        ) from None
    except _MALFORMED:
        raise FormatError(f"{subject}: a certificate is malformed") from None
    known = {curve.name for curve in CURVES.values()}
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in known:
        raise FormatError(
            f"{subject}: expected the certificate of a key on P-256, P-384 or P-521"
        )
    return PublicKey(key)


def _for_signing(policy: ExtensionPolicy) -> ExtensionPolicy:
    return policy.may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _check_purpose
    )


def _may_sign(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        try:
            extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        except x509.ExtensionNotFound:
            return False
        return True  # `_check_purpose` looks at what it says
    return usage.digital_signature


def _check_purpose(
    _: Policy, certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None
) -> None:
    """Refuse a certificate for other purposes, such as web servers, as ValueError."""
    if usage is not None and not _PURPOSES & set(usage):
        raise ValueError(f"{certificate.subject.rfc4514_string()} is for other purposes")
