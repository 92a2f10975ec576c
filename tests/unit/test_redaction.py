"""What of a text may leave the machine."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from releasekit.redaction import Private, Redactor, hider, secrets_of

HEX = "0123456789abcdef" * 2 + "01234567"
PRIVATE = Private(
    secrets=("hunter22!", "p@ss/w rd"),
    homes=("/home/alice", "/Users/My Name", "/"),
    users=("alice", "al", "root", ""),
    hosts=("gpu-01.acme.corp", "gpu-01", "localhost"),
    paths=("models/acme", "My Models/tune one", "BASE"),
)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("/home/alice", "~"),
        ("/home/alice/", "~"),
        ("/home/alice/x.json", "~/x.json"),
        ("/home/alice/acme/llama/x.json", "~/<path-1>/x.json"),
        ("~/acme/llama", "~/<path-1>/llama"),
        ("/Users/My Name/x y/z: is bad", "~/<path-1>/z: is bad"),
        ("/data/acme/llama", "<path-1>/llama"),
        ("/data//acme/llama/", "<path-1>/llama/"),
        ("/data", "/data"),
        ("/", "/"),
        ("/home/bob and /Users/carol/x", "<path-1>/<user> and <path-2>/x"),
        ("/a/b/c, /a/b/d; /a/x/c.", "<path-1>/c, <path-1>/d; <path-2>/c."),
        ("/a/b to /c/d", "<path-1>/b to <path-2>/d"),
        ("/data/My Models/sub dir/w.bin: expected", "<path-1>/w.bin: expected"),
        ("'/data/My Models/My Tune'", "'<path-1>/My Tune'"),
        ('"data/bob\'s/My Tune"', '"<path-1>/My Tune"'),
        ("/data/bob's/w.bin isn't", "<path-1>/w.bin isn't"),
        ("acme/tune@v1.0: no", "<path-1>/tune@v1.0: no"),
        ("../acme/x ./x ../x", "<path-1>/x ./x ../x"),
        ("models/acme: models/acme/w.bin", "<path-1>/acme: <path-2>/w.bin"),
        ("My Models/tune one/a b/w.bin", "<path-1>/w.bin"),
        ("--out=/a/b/c (see /d/e/f)", "--out=<path-1>/c (see <path-2>/f)"),
        ("share 1/8, 3 GB/s, I/O and/or n/a", "share 1/8, 3 GB/s, I/O and/or n/a"),
        ("BASE is no path", "BASE is no path"),
        ("file:///home/alice/a/b", "file:///~/<path-1>/b"),
    ],
)
def test_paths_lose_their_folders(text: str, safe: str) -> None:
    assert Redactor(PRIVATE).text(text) == safe


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("https://huggingface.co/acme", "https://huggingface.co/acme"),
        (
            "https://huggingface.co/acme/tune/resolve/main/w.bin.",
            "https://huggingface.co/<path-1>/w.bin.",
        ),
        (
            "https://cdn.hf.co/a/b?X-Amz-Signature=0f&Expires=1",
            "https://cdn.hf.co/<path-1>/b?<secret>",
        ),
        ("https://user:pass@hub.acme.com:8080", "https://<secret>@<host>:8080"),
        ("https://user:p@ss/w@hub.acme.com/a", "https://<secret>@<host>/a"),
        ("http://localhost:8000/x#frag", "http://localhost:8000/x#<secret>"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("s3://bucket/key/w.bin", "s3://<host>/<path-1>/w.bin"),
    ],
)
def test_addresses_lose_what_lets_somebody_in(text: str, safe: str) -> None:
    assert Redactor(PRIVATE).text(text) == safe


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("made by alice on gpu-01", "made by <user> on <host>"),
        ("Alice's alices", "<user>'s <user>s"),
        ("al, al_1, final", "<user>, <user>_1, final"),
        ("root of the tree on localhost", "root of the tree on localhost"),
        ("gpu-01.acme.corp:6379", "<host>:6379"),
        ("ray:10.1.2.3:6379, 127.0.0.1, 2.6.0", "ray:<address>:6379, 127.0.0.1, 2.6.0"),
        ("bob.smith@acme.org wrote", "<mail> wrote"),
    ],
)
def test_names_of_user_and_machine_go(text: str, safe: str) -> None:
    assert Redactor(PRIVATE).text(text) == safe


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("it was hunter22! again", "it was <secret> again"),
        ("p%40ss%2Fw%20rd", "<secret>"),
        ("hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", "<secret>"),
        ("(hf_oauth_AbCdEfGhIj.KlMn)", "(<secret>)"),
        ("hf_hub_download and hf_transfer", "hf_hub_download and hf_transfer"),
        ("api_org_AbCdEfGhIjKl", "<secret>"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: <secret>"),
        (
            "{'authorization': 'Basic dTpw', 'a': 1}",
            "{'authorization': '<secret>', 'a': 1}",
        ),
        ("Cookie: a=b; c=d", "Cookie: <secret>"),
        ("bearer abcdefghi", "bearer <secret>"),
        ("a basic model", "a basic model"),
        ("HF_TOKEN=abc, next", "HF_TOKEN=<secret>, next"),
        ('{"password": "abc"}', '{"password": "<secret>"}'),
        ("the passphrase: expected one", "the passphrase: expected one"),
        ("token: 0123456789abcdef", "token: <secret>"),
        ("secret_key = 'abc'", "secret_key = '<secret>'"),
        ("--passphrase-file=x", "--passphrase-file=x"),
        ("id AKIAIOSFODNN7EXAMPLE", "id <secret>"),
        ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "<secret>"),
        (f"commit {HEX}", f"commit {HEX}"),
        ("ghp_abcdefghijklmnopqrstuv", "<secret>"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2ln", "<secret>"),
        (
            "-----BEGIN EC PRIVATE KEY-----\nMHc/CA\n-----END EC PRIVATE KEY-----\nx",
            "<secret>\nx",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMHcCA cut", "<secret>"),
    ],
)
def test_secrets_go(text: str, safe: str) -> None:
    assert Redactor(PRIVATE).text(text) == safe
    assert hider(PRIVATE.secrets)(text) == safe


def test_secrets_of_the_environment_are_known_by_their_names() -> None:
    assert secrets_of(
        {
            "HF_TOKEN": " hf_abcdef \n",
            "AWS_SECRET_ACCESS_KEY": "abc/def+ghi=",
            "HTTPS_PROXY": "http://someone:pass%20word@proxy:3128",
            "TOKENIZERS_PARALLELISM": "false-ish",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "KEYBOARD": "qwertyui",
            "MY_PASSWORDS": "correct horse",
            "PATH": "/usr/bin:/bin",
        }
    ) == (
        *(" hf_abcdef \n", "abc/def+ghi=", "correct horse", "hf_abcdef"),
        *("pass word", "pass%20word", "someone"),
    )


def test_one_folder_has_one_number_in_all_texts() -> None:
    redactor = Redactor(PRIVATE)
    assert redactor.text("/data/acme/base") == "<path-1>/base"
    assert redactor.text("/data/other/x") == "<path-2>/x"
    assert redactor.path("/data/acme/My Tune") == "<path-1>/My Tune"


def test_values_keep_their_shape() -> None:
    assert Redactor(PRIVATE).value(
        {
            "a/b": ["/home/alice/x", ("hunter22!", 1, 0.5, True, None)],
            "path": PurePosixPath("My Models/alice: x"),
        }
    ) == {"a/b": ["~/x", ["<secret>", 1, 0.5, True, None]], "path": "<path-1>/<user>: x"}


def test_nothing_need_be_known() -> None:
    safe = Redactor(Private()).text("alice at /home/alice/x with hf_AbCdEfGhIjKlMn")
    assert safe == "alice at <path-1>/x with <secret>"
