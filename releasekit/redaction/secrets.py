"""Secrets in text: those that are known, and what looks like one.

What the environment holds is taken out wherever it stands, also percent-encoded or with
escapes. What is not known is found by its form: tokens with the prefixes that services
give them, headers, assignments, private keys, and the parts of addresses that let somebody
in, which `places` takes out. Where a word of prose looks the same, it goes, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import quote, unquote

SECRET: Final = "<secret>"
#: What stands for something that was taken out, as a pattern: none is taken out again.
MARK: Final = r"<(?:secret|user|host|mail|address|path-[0-9]+)>"

#: Characters below which a value is no secret, but a switch, such as "1" or "false", that
#: taken out everywhere would leave nothing to read.
_SHORTEST: Final = 6
_NAMES: Final = re.compile(
    r"(?:^|_)(?:API_?KEY|AUTH|COOKIE|CREDENTIALS?|KEY|PASS|PASSPHRASE|PASSWD|PASSWORD|PAT"
    r"|PWORD|SECRET|SIGNATURE|TOKEN)S?(?:_|$)",
    re.IGNORECASE,
)
_USERINFO: Final = re.compile(r"://([^\s/@:]*):([^\s/@]+)@")

_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_HEADER: Final = re.compile(
    r"""\b((?:proxy-)?authorization|(?:set-)?cookie)(["']?\s*[:=]\s*["']?)[^\s"'][^\r\n"']*""",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(
    r"\b(bearer\s+(?=[\w.~+/=-]{8})|basic\s+(?=[\w+/=-]{16}))[\w.~+/=-]+", re.IGNORECASE
)
_ASSIGNED: Final = re.compile(
    r"""(?<![\w-])([\w-]*(?:token|secret|passw(?:or)?d|passphrase|credentials?|signature
        |(?:access|api|secret|private)[_-]?key(?:[_-]?id)?))
    (["']\s*[:=]\s*["']?   # of a dictionary, or JSON
        |\s*=\s*["']? | \s*:\s*["'] | \s*:\s+(?=\S*[0-9])(?=\S{16}))
    ([^\s"'&,;]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_TOKENS: Final = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        hf_[A-Za-z0-9]{10,} | hf_(?:app|jwt|oauth|org|user)_[\w.-]{8,}   # the Hub's
      | api_org_[A-Za-z0-9]{10,}
      | gh[opsur]_\w{16,} | github_pat_\w{16,} | glpat-[\w-]{16,}
      | (?:A3T[A-Z0-9]|A[BCGIKNPRS](?:IA|PA|DA|CA|OA|VA))[A-Z0-9]{16}   # ids of AWS's keys
      | AIza[\w-]{30,} | ya29\.[\w-]{16,}   # Google's
      | (?:sk|pk|rk)-[\w-]{16,} | xox[a-z]-[\w-]{10,} | pypi-[\w-]{16,}
      | eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?   # JSON web tokens
    )""",
    re.VERBOSE,
)
# An AWS secret key is 40 digits of base64; a commit's digest has as many, but no capitals.
_DIGITS: Final = re.compile(r"(?<![\w/+=])[A-Za-z0-9/+]{40}(?![\w/+=])")


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values of variables that are secrets by their names, or hold a password.

    Args:
        environment: the values by name, as the process has them.
    """
    found: set[str] = set()
    for name, value in environment.items():
        if _NAMES.search(name):
            found.update((value, value.strip()))
        for user, password in _USERINFO.findall(value):
            found.update((password, unquote(password)))
            found.update((user, unquote(user)))
    return tuple(sorted(secret for secret in found if len(secret.strip()) >= _SHORTEST))


def hider(secrets: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that takes secrets out of text.

    Args:
        secrets: those that are known; ones of fewer than 6 characters are not looked for.
    """
    known = _pattern(secrets)

    def hide(text: str) -> str:
        text = known.sub(lambda found: found["mark"] or SECRET, text)
        text = _KEY.sub(SECRET, text)
        text = _HEADER.sub(rf"\1\2{SECRET}", text)
        text = _SCHEME.sub(rf"\1{SECRET}", text)
        text = _ASSIGNED.sub(rf"\1\2{SECRET}", text)
        text = _TOKENS.sub(SECRET, text)
        return _DIGITS.sub(_unless_digest, text)

    return hide


def _pattern(secrets: Iterable[str]) -> re.Pattern[str]:
    """Finds any of the secrets, the longest first; and marks, in none of which it looks."""
    forms: set[str] = set()
    for secret in secrets:
        if len(secret.strip()) >= _SHORTEST:
            escaped = json.dumps(secret)[1:-1], repr(secret)[1:-1]
            forms.update((secret, quote(secret, safe=""), quote(secret), *escaped))
    longest = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join([f"(?P<mark>{MARK})", *map(re.escape, longest)]))


def _unless_digest(found: re.Match[str]) -> str:
    text = found[0]
    mixed = any(c.isupper() for c in text) and any(c.islower() for c in text)
    return SECRET if mixed and any(c.isdigit() for c in text) else text
