"""Whatever is around it: no secret, no owner and no folder is left, and that for good."""

from __future__ import annotations

import string
import time

from hypothesis import assume, given
from hypothesis import strategies as st

from releasekit.redaction import Private, Redactor, secrets_of

_MARKS = "secret user host mail address path"

# What paths, addresses, secrets and prose are made of; and marks, as if it were done.
_PIECES = st.sampled_from(
    [
        *("/", "//", "~", "~/", ".", "..", "./", " ", "\n", "\r", "\\", "'", '"', "<", ">"),
        *(":", ": ", ", ", ";", "(", ")", "[", "]", "=", "|", "{", "}", "@", "?", "#", "-"),
        *("a", "é", "1", "/s", "B/s", "1/2", "and/or", "home", "Users", "x@y.zz", "_"),
        *("https://", "file://", "10.0.0.1", "hf_AbCdEfGhIjKl", "Bearer ", "abcdefghij"),
        *(
            "Authorization: ",
            "token",
            "token=",
            "password",
            "<path-1>",
            "<secret>",
            "<user>",
        ),
        *(
            "/home/alice",
            "alice",
            "al",
            "gpu-01",
            "hunter22!",
            "models/acme",
            "My Models/x",
        ),
    ]
)
_TEXTS = st.lists(_PIECES | st.characters(codec="utf-8"), max_size=14).map("".join)
_NAMES = st.text(string.ascii_lowercase + string.digits, min_size=5, max_size=12)
_TOKENS = st.text(string.ascii_letters + string.digits + "+/=._-!", min_size=8, max_size=40)
_PRIVATE = Private(
    secrets=("hunter22!",),
    homes=("/home/alice",),
    users=("alice", "al"),
    hosts=("gpu-01",),
    paths=("models/acme", "My Models/x"),
)


@given(_TEXTS)
def test_what_was_redacted_stays_as_it_is(text: str) -> None:
    redactor = Redactor(_PRIVATE)
    safe = redactor.text(text)
    assert redactor.text(safe) == safe


@given(_TEXTS)
def test_neither_home_nor_user_nor_secret_is_left(text: str) -> None:
    safe = Redactor(_PRIVATE).text(text)
    assert all(one not in safe for one in ("/home/alice", "alice", "gpu-01", "hunter22!"))


@given(_TOKENS, _TEXTS, _TEXTS)
def test_no_secret_of_the_environment_is_left(secret: str, left: str, right: str) -> None:
    assume(secret not in _MARKS and secret.strip(".") != "")
    environment = {"HF_TOKEN": secret, "HOME": "/home/alice"}
    redactor = Redactor(Private(secrets=secrets_of(environment)))
    for value in (f"{left}{secret}{right}", f"{left} {secret} {right}"):
        assert secret not in redactor.text(value)


@given(_NAMES, _NAMES, st.sampled_from(["/home", "/Users", "/data/people", "/x"]), _TEXTS)
def test_no_user_is_left(user: str, rest: str, above: str, text: str) -> None:
    assume(user not in _MARKS)
    home = f"{above}/{user}"
    redactor = Redactor(Private(homes=(home,), users=(user,)))
    safe = redactor.text(f"{text} {home}/{rest}/{user}.bin {user.upper()} {home}")
    assert home not in safe
    assert user not in safe.lower()


@given(
    st.lists(_NAMES, min_size=1, max_size=4),
    st.sampled_from(["/", "", "~/", "../"]),
    st.sampled_from([" ", "'", '"', "(", "=", ": ", "\n"]),
    _TEXTS,
)
def test_no_folder_above_the_last_is_left(
    folders: list[str], lead: str, mark: str, text: str
) -> None:
    secret = [f"q{folder}q" for folder in folders]
    path = lead + "/".join([*secret, "last.bin"])
    assume(not any(folder in text for folder in secret))
    if lead == "~/":
        mark = " "
    safe = Redactor(Private()).text(f"at{mark}{path}{mark.replace('(', ')')} {text}")
    assert all(folder not in safe for folder in secret)


def test_long_texts_take_no_long_time() -> None:
    redactor = Redactor(_PRIVATE)
    begun = time.process_time()
    for unit in (
        "a",
        "a-",
        "/",
        "a/",
        "'",
        '"a/',
        "1.",
        "a.b@",
        "<user>",
        "alice",
        "token",
    ):
        redactor.text(unit * (20_000 // len(unit)))
    assert time.process_time() - begun < 5  # seconds: a quadratic one takes as long alone
