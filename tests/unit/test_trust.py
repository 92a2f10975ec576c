"""The trust file: what may be in it, how it changes, and that it is never half written."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from releasekit.errors import FormatError, UsageError
from releasekit.signing.keys import PrivateKey
from releasekit.trust import Publisher, Seen, Trust, default_path, load, parse, updating

# The same in each process that runs tests: cases are named after them.
KEYS = [PrivateKey(ec.derive_private_key(n, ec.SECP256R1())).public for n in range(1, 5)]
A, B, C, D = KEYS


def seen(version: str, key: str = A.fingerprint, release: str = "tune") -> Seen:
    return Seen(key=key, release=release, version=version, manifest="0" * 64)


def empty() -> Trust:
    return Trust(path=Path("trust.json"))


def again(trust: Trust) -> Trust:
    """The same, as it comes back from the disk."""
    return parse(trust.pack(), trust.path)


def names(trust: Trust) -> list[str]:
    return [publisher.name for publisher in trust.publishers]


# Whom to trust.


def test_keys_are_added_to_publishers() -> None:
    trust = empty()
    assert trust.add("acme", A) == Publisher(name="acme", keys=[A])
    assert trust.add("beta", B).keys == [B]
    assert trust.add("ACME", C).name == "acme"
    assert trust.add("acme", A).keys == [A, C]
    assert trust.owner(C) is trust.publisher("Acme")
    assert trust.owner(D) is None
    assert trust.publisher("gamma") is None
    assert names(trust) == ["acme", "beta"]


def test_a_wish_for_signatures_is_kept() -> None:
    trust = empty()
    assert not trust.add("acme", A).require_signature
    assert trust.add("acme", A, require_signature=True).require_signature
    assert trust.add("acme", B).require_signature


def test_a_key_is_of_one_publisher() -> None:
    trust = empty()
    trust.add("acme", A)
    with pytest.raises(UsageError) as caught:
        trust.add("beta", A)
    assert str(caught.value) == (
        f"{A.fingerprint}: is trusted as a key of acme; remove it there first: releasekit "
        "trust remove acme"
    )
    assert names(trust) == ["acme"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", ".a", "-a", "ä", "a\n", "a" * 97])
def test_a_publisher_has_a_name_as_on_the_hub(name: str) -> None:
    trust = empty()
    with pytest.raises(UsageError, match=r"^publisher "):
        trust.add(name, A)
    assert not trust.publishers


@pytest.mark.parametrize("name", ["a", "0", "Acme-2.x_y", "a" * 96])
def test_names_that_publishers_may_have(name: str) -> None:
    trust = empty()
    trust.add(name, A)
    assert names(again(trust)) == [name]


def test_publishers_are_removed_by_any_spelling() -> None:
    trust = empty()
    trust.add("acme", A)
    trust.add("beta", B)
    trust.see(seen("1"))
    assert trust.remove("ACME").keys == [A]
    assert names(trust) == ["beta"]
    assert trust.seen  # so that it is known, should they come back
    with pytest.raises(UsageError) as caught:
        trust.remove("acme")
    assert str(caught.value) == 'trust.json: has no publisher "acme"; it has: beta'


# Keys that others take the place of.


def test_a_key_takes_the_place_of_another() -> None:
    trust = empty()
    trust.add("acme", A)
    trust.add("acme", B)
    trust.supersede(A, C)
    acme = trust.publishers[0]
    assert ({*acme.keys}, acme.superseded) == ({B, C}, [A])
    trust.supersede(C, B)  # which is trusted already
    assert (acme.keys, acme.superseded) == ([B], [A, C])
    assert again(trust) == trust


def test_a_key_takes_the_place_of_several() -> None:
    trust = empty()
    trust.add("acme", A)
    trust.add("acme", D)
    trust.supersede(A, B)
    trust.supersede(B, C)
    acme = trust.publishers[0]
    assert ({*acme.keys}, acme.superseded) == ({C, D}, [A, B])
    assert again(trust) == trust


def test_a_key_that_is_nobodys_takes_no_place() -> None:
    trust = empty()
    trust.add("acme", A)
    trust.supersede(B, C)
    assert trust.publishers == [Publisher(name="acme", keys=[A])]


def test_a_superseded_key_that_is_added_is_trusted_again() -> None:
    trust = empty()
    trust.add("acme", A)
    trust.supersede(A, B)
    acme = trust.add("acme", A)
    assert (acme.keys, acme.superseded) == ([B, A], [])
    assert again(trust) == trust


def test_a_key_of_another_publisher_takes_no_place() -> None:
    """Or the file could not be read again: a key is of one publisher."""
    trust = empty()
    trust.add("acme", A)
    trust.add("beta", B)
    trust.supersede(A, B)
    assert again(trust) == trust
    owner = trust.owner(B)
    assert owner is not None
    assert owner.name == "beta"


def test_what_was_seen_is_known_under_the_new_key() -> None:
    trust = empty()
    trust.add("acme", A)
    trust.see(seen("2"))
    trust.see(seen("1", release="other"))
    trust.see(seen("3", B.fingerprint, "other"))
    trust.supersede(A, B)
    assert trust.seen[B.fingerprint, "tune"].version == "2"
    assert trust.seen[B.fingerprint, "other"].version == "3"


# What was seen.


@pytest.mark.parametrize(
    ("first", "second", "latest"),
    [
        ("1", "2", "2"),
        ("2", "1", "2"),
        ("1.9", "1.10", "1.10"),
        ("1", "1.0", "1.0"),
        ("1.0.1", "1", "1.0.1"),
    ],
)
def test_the_latest_version_is_kept(first: str, second: str, latest: str) -> None:
    trust = empty()
    trust.see(seen(first))
    trust.see(seen(second))
    assert [item.version for item in trust.seen.values()] == [latest]


def test_versions_are_known_by_key_and_release() -> None:
    trust = empty()
    trust.see(seen("2"))
    trust.see(seen("1", B.fingerprint))
    trust.see(seen("1", release="other"))
    assert len(trust.seen) == 3
    assert again(trust) == trust


# The file.


def full() -> Trust:
    trust = empty()
    trust.add("acme", A, require_signature=True)
    trust.add("acme", B)
    trust.add("beta", C)
    trust.supersede(B, D)
    trust.see(seen("1.2", release="größe"))
    return trust


def test_what_was_packed_is_read_again() -> None:
    assert again(full()) == full()
    assert again(empty()) == empty()
    assert again(full()).pack() == full().pack()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("releasekit-trust/1", "releasekit-trust/2", "format: expected one of "),
        (
            '"name": "acme"',
            '"name": "a b"',
            'publishers: "a b" is no name, or stands twice',
        ),
        ('"name": "acme"', '"name": "Beta"', 'publishers: "beta" is no name, or stands'),
        ('"name": "acme"', '"name": "acme", "x": 1', 'unknown field "x"'),
        ('"require_signature": true', '"require_signature": 1', "expected true or false"),
        ('"seen": [', '"seen": [{}, ', "seen[0]: missing field"),
        ('"version": "1.2"', '"version": "1.2rc1"', "seen: version: expected one to four"),
        (A.fingerprint, A.fingerprint[1:], "seen[0].key: expected 64 lowercase"),
        ("BEGIN PUBLIC KEY", "BEGIN PRIVATE KEY", "keys[0]: is a private key"),
        ("BEGIN PUBLIC KEY", "BEGIN KEY", "keys[0]: expected a public key in PEM"),
    ],
)
def test_what_is_malformed_is_refused(old: str, new: str, message: str) -> None:
    text = full().pack().decode()
    assert old in text
    with pytest.raises(FormatError, match=re.escape(message)) as caught:
        parse(text.replace(old, new, 1).encode(), Path("trust.json"))
    assert str(caught.value).startswith("trust.json: ")


def test_nothing_stands_twice() -> None:
    trust = full()
    trust.publishers.append(Publisher(name="gamma", keys=[C]))
    with pytest.raises(FormatError, match="a key of gamma is another's as well"):
        again(trust)
    text = full().pack().decode()
    begin, end = text.index('"seen": [') + 9, text.rindex("]")
    twice = f"{text[:end]},{text[begin:end]}{text[end:]}"
    with pytest.raises(FormatError, match="stands twice"):
        parse(twice.encode(), Path("trust.json"))


def test_a_file_that_is_not_there_trusts_nobody(tmp_path: Path) -> None:
    assert load(tmp_path / "gone" / "trust.json").publishers == []
    assert not (tmp_path / "gone").exists()
    (tmp_path / "file").write_text("")
    assert load(tmp_path / "file" / "trust.json").publishers == []


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666, 0o777])
def test_a_file_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(full().pack())
    path.chmod(0o644)
    assert load(path).publishers
    path.chmod(mode)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert f"`chmod 600 {path}`" in str(caught.value)


# Changing it.


def test_a_change_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trust.json"
    before = os.umask(0)
    try:
        with updating(path) as trust:
            trust.add("acme", A)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert names(load(path)) == ["acme"]
    assert sorted(os.listdir(path.parent)) == ["trust.json", "trust.json.lock"]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    with updating(path) as trust:
        trust.add("acme", A)
    before = path.read_bytes()

    def fail() -> None:
        with updating(path) as trust:
            trust.add("beta", B)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == before
    with updating(path) as trust:  # the lock is free
        trust.remove("acme")


def test_no_change_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    with updating(path):
        pass
    assert not path.exists()
    with updating(path) as trust:
        trust.add("acme", A)
    before = path.stat()
    with updating(path) as trust:
        trust.add("acme", A)
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    """As people have who keep their settings in a repository."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine.json").write_bytes(full().pack())
    (tmp_path / "kept" / "mine.json").chmod(0o644)
    (tmp_path / "trust.json").symlink_to(tmp_path / "kept" / "mine.json")
    with updating(tmp_path / "trust.json") as trust:
        trust.remove("beta")
    assert (tmp_path / "trust.json").is_symlink()
    assert names(load(tmp_path / "kept" / "mine.json")) == ["acme"]


def test_changes_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    started, waited = threading.Event(), threading.Event()

    def change() -> None:
        started.set()
        with updating(path) as trust:
            assert names(trust) == ["acme"]
            trust.add("beta", B)
        waited.set()

    other = threading.Thread(target=change)
    with updating(path) as trust:
        other.start()
        assert started.wait(10)
        assert not waited.wait(0.1)
        trust.add("acme", A)
    other.join(10)
    assert waited.is_set()
    assert names(load(path)) == ["acme", "beta"]


def test_a_run_that_was_killed_leaves_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    with updating(path) as trust:
        trust.add("acme", A)
    (tmp_path / ".trust.json.new").write_text('{"format"')
    with updating(path) as trust:
        trust.add("beta", B)
    assert names(load(path)) == ["acme", "beta"]
    assert not (tmp_path / ".trust.json.new").exists()


# Where it is.


@pytest.mark.parametrize("value", [None, "", "relative", "./relative"])
def test_without_a_folder_for_settings_it_is_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("XDG_CONFIG_HOME")
    else:
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
    assert default_path() == tmp_path / ".config" / "releasekit" / "trust.json"


def test_it_is_in_the_folder_for_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "größe"))
    assert default_path() == tmp_path / "größe" / "releasekit" / "trust.json"


def test_where_there_is_no_home_there_is_a_path_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pwd

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert default_path().is_absolute()
    assert default_path().parts[-2:] == ("releasekit", "trust.json")
