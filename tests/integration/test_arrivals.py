"""Base and delta by their names on the Hub: read before they come, used while they come."""

from __future__ import annotations

import json
import math
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from releasekit import Add, PrivateKey, Ulp, apply_delta, make_delta, plan_apply, preflight
from releasekit.digest import sha256_hex
from releasekit.errors import ReleaseKitError
from releasekit.progress import Progress
from releasekit.signing.keys import write_pair
from tests.builders import model_folder
from tests.fakehub import TOKEN, Answer, FakeHub, Part, Request, path_of
from tests.integration.tools import (
    COMMAND,
    TRACEBACK,
    Done,
    Model,
    digests,
    good,
    here,
    trained,
    weights,
)

BASE, RELEASE = "org/base", "acme/release"
FIRST = "model-00001-of-00003.safetensors"
HEAD = 1 << 17  # bytes that are read of each file before it comes
SAMPLED = (4 + 5 + 8) * HEAD  # of each file of both, and the tensors that are sampled


@dataclass(frozen=True)
class World:
    """A base of four files, the last of which no delta here needs; a tune of three.

    Attributes:
        files: what is on the Hub, by name.
        releases: folders of releases, by what they are.
        wrong: another model of the same shapes.
    """

    root: Path
    base: Path
    tune: Path
    wrong: Path
    releases: dict[str, Path]

    def digest(self, path: Path) -> str:
        return sha256_hex(path.read_bytes())

    def shard(self, number: int) -> str:
        """Where a file of the base lies on the CDN."""
        path = self.base / f"model-{number:05}-of-00004.safetensors"
        return f"GET /cdn/{self.digest(path)}"

    def payload(self, number: int) -> str:
        """Where a file of the release lies on the CDN."""
        payloads = sorted(self.releases["ulp"].glob("*.safetensors"))
        return f"GET /cdn/{self.digest(payloads[number])}"


def files_of(folder: Path) -> dict[str, bytes | Path]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    source = np.random.default_rng(5)
    base: Model = {}
    for number in range(12):
        base[f"layer.{number}.norm"] = weights(source, "F32", 64, scale=1)
        base[f"layer.{number}.weight"] = weights(source, "BF16", 256, 256)
    target = {name: trained(source, tensor, step=0.01) for name, tensor in base.items()}
    wrong = {
        name: weights(source, *tensor[:1], *tensor[1]) for name, tensor in base.items()
    }
    unused: Model = {f"old.{n}": weights(source, "BF16", 100, 257) for n in range(8)}
    folders = {
        "base": model_folder(root / "base", base | unused, shards=4),
        "tune": model_folder(root / "tune", target, shards=3),
        "wrong": model_folder(root / "wrong", wrong | unused, shards=4),
    }
    (folders["tune"] / "config.json").write_bytes(b"{}")
    key = PrivateKey.generate()
    write_pair(key, root / "key.pem", None)
    write_pair(PrivateKey.generate(), root / "other.pem", None)
    makes: dict[str, dict[str, Any]] = {
        "ulp": {"codec": Ulp(chunk=32_768)},
        "add": {"codec": Add(chunk=32_768)},
        "signed": {"codec": Ulp(chunk=32_768), "sign_key": key},
    }
    for name, options in makes.items():
        out = root / name
        make_delta(
            folders["base"], folders["tune"], out, shard_nbytes=300_000, name="x", **options
        )
    assert len(list((root / "ulp").glob("*.safetensors"))) > 2
    return World(root=root, **folders, releases={name: root / name for name in makes})


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes longer than most tests here, none of which needs any."""
    context = partial(ssl.SSLContext, ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr("ssl.create_default_context", lambda *args, **kwargs: context())


@pytest.fixture
def online(hub: FakeHub, world: World) -> FakeHub:
    """The Hub with base and release."""
    hub.put(BASE, files_of(world.base) | {"README.md": b"# Base\n"})
    hub.put(RELEASE, files_of(world.releases["ulp"]))
    return hub


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def arguments(out: Path, *more: str | Path) -> list[str | Path]:
    return [
        "apply-delta",
        "--base",
        BASE,
        "--delta",
        RELEASE,
        "--out",
        out,
        "--json",
        *more,
    ]


def apply(out: Path, *more: str | Path) -> Done:
    """The command; neither a token nor a signed address is ever told."""
    done = here(*arguments(out, *more))
    assert not re.search(rf"Signature=|Expires=|{TOKEN}", done.stdout + done.stderr)
    assert TRACEBACK not in done.stderr
    assert out.exists() == (done.code == 0 and "--dry-run" not in more)
    return done


def refused(code: int, out: Path, *more: str | Path) -> str:
    done = apply(out, *more)
    assert done.code == code, done.stdout + done.stderr
    message: str = done.json["error"]["message"]
    return message


def wholes(hub: FakeHub) -> list[tuple[str, str]]:
    """Contents that were asked for to their end, rather than by range; and from where."""
    asked = (
        (str(r).partition("?")[0], r.headers.get("range", "bytes=0-"))
        for r in hub.requests
        if "GET /cdn/" in str(r)
    )
    return [(content, span) for content, span in asked if span.endswith("-")]


def whole(hub: FakeHub) -> list[str]:
    """The contents alone."""
    return [content for content, _ in wholes(hub)]


def by_range(hub: FakeHub) -> int:
    """Bytes that were asked for by range."""
    asked = (r.headers.get("range", "-") for r in hub.requests if "GET /cdn/" in str(r))
    spans = (re.fullmatch(r"bytes=(\d+)-(\d+)", each) for each in asked)
    return sum(int(span[2]) + 1 - int(span[1]) for span in spans if span)


def to_the_end(
    hub: FakeHub, match: str, how: Callable[[Request, Answer], Answer | None]
) -> None:
    """Changes what is sent to whoever wants a file whole."""

    def changed(request: Request, answer: Answer) -> Answer | None:
        if request.headers.get("range", "-").endswith("-"):
            return how(request, answer)
        return None

    hub.rewrite(match, changed)


def slowly(hub: FakeHub, match: str) -> None:
    """Has a file come as slowly as can be, but for its first half."""

    def how(request: Request, answer: Answer) -> Answer:
        assert isinstance(answer.body, Part)
        data = answer.body.read()
        length = {"Content-Length": str(len(data))}

        def pieces() -> Iterator[bytes]:
            half = len(data) // 2
            yield data[:half]
            for start in range(half, len(data)):
                yield data[start : start + 1]
                if hub.stopped.wait(0.05):
                    return

        return replace(answer, body=pieces(), headers=answer.headers | length)

    to_the_end(hub, match, how)


def flip(where: int) -> Callable[[Request, Answer], Answer]:
    """Sends a content with the last bit of one byte wrong."""

    def how(request: Request, answer: Answer) -> Answer:
        assert isinstance(answer.body, Part)
        data = bytearray(answer.body.read())
        data[where] ^= 1
        return replace(answer, body=bytes(data))

    return how


# What is downloaded, and when.


@pytest.mark.parametrize("kind", ["ulp", "add", "signed"])
def test_only_what_is_needed_is_downloaded(
    online: FakeHub, world: World, out: Path, kind: str
) -> None:
    online.put(RELEASE, files_of(world.releases[kind]))
    seen: list[Progress] = []
    apply_delta(BASE, RELEASE, out, progress=seen.append)
    expected = digests(world.tune)
    assert {name: digests(out)[name] for name in expected} == expected
    asked = whole(online)
    assert len(asked) == len(set(asked))
    assert world.shard(4) not in asked
    assert {world.shard(1), world.shard(2), world.shard(3)} <= set(asked)
    assert by_range(online) < SAMPLED
    stages = {step.stage: step for step in seen}
    assert {"download", "rebuild"} <= stages.keys()
    assert all(step.done == step.total for step in stages.values())
    online.requests.clear()
    apply_delta(BASE, RELEASE, out.with_name("again"))
    assert whole(online) == []


def test_a_check_downloads_no_weights(
    online: FakeHub, world: World, out: Path, tmp_path: Path
) -> None:
    found = preflight(BASE, RELEASE, out=out)
    assert found.ok, found.findings
    assert whole(online) == []
    needed = [*world.releases["ulp"].glob("*.safetensors")]
    needed += [world.base / f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3)]
    nbytes = sum(path.stat().st_size for path in needed)
    assert found.download_nbytes == nbytes
    assert by_range(online) < SAMPLED
    plan = plan_apply(BASE, RELEASE, out)
    assert plan.download_nbytes == nbytes
    assert whole(online) == []
    there = [p for p in (tmp_path / "hf").rglob("*") if p.is_file() and not p.is_symlink()]
    assert all(path.stat().st_size < HEAD for path in there)
    lines = good("preflight", "--base", BASE, "--delta", RELEASE).stdout.splitlines()
    assert any(re.fullmatch(r"download +[\d.]+ MB from the Hub", line) for line in lines)


def test_a_large_tensor_is_looked_at_in_few_requests(
    hub: FakeHub, world: World, tmp_path: Path
) -> None:
    """Of rotated ones, one is read whole: its rows have two orders in the wild."""
    source = np.random.default_rng(6)
    name = "model.layers.0.self_attn.q_proj.weight"
    base: Model = {name: ("BF16", (3000, 3000), source.bytes(18_000_000))}
    base |= {f"norm.{n}": weights(source, "F32", 64, scale=1) for n in range(9)}
    tune = {key: trained(source, tensor) for key, tensor in base.items() if key != name}
    tune[name] = ("BF16", (3000, 3000), base[name][2][::-1])
    folder = model_folder(tmp_path / "base", base)
    make_delta(folder, model_folder(tmp_path / "tune", tune), tmp_path / "release")
    hub.put(BASE, files_of(folder))
    found = preflight(BASE, tmp_path / "release")
    assert found.ok, found.findings
    assert whole(hub) == []
    assert 18_000_000 < by_range(hub) < 36_000_000
    assert len(hub.asked("/cdn/")) < 12


def test_what_is_here_already_is_not_counted(
    online: FakeHub, world: World, out: Path
) -> None:
    every = preflight(BASE, RELEASE).download_nbytes
    assert every is not None
    good("fetch", RELEASE)
    found = preflight(BASE, RELEASE).download_nbytes
    payloads = world.releases["ulp"].glob("*.safetensors")
    assert found == every - sum(path.stat().st_size for path in payloads)
    # In the cache as another commit's:
    online.put(RELEASE, files_of(world.releases["ulp"]) | {"note.md": b""})
    assert preflight(BASE, RELEASE).download_nbytes == found
    good("fetch", BASE)
    assert preflight(BASE, RELEASE).download_nbytes == 0
    assert plan_apply(BASE, RELEASE, out).download_nbytes == 0
    online.requests.clear()
    assert apply(out).code == 0
    assert whole(online) == []


@pytest.mark.parametrize("command", ["preflight", "apply"])
def test_a_wrong_base_is_refused_before_weights_come(
    online: FakeHub, world: World, out: Path, command: str
) -> None:
    online.put(BASE, files_of(world.wrong))
    if command == "apply":
        assert "this is another model of the architecture" in refused(4, out)
    else:
        done = here("preflight", "--base", BASE, "--delta", RELEASE, "--json")
        assert (done.code, done.json["findings"][0]["kind"]) == (4, "other-model")
    assert whole(online) == []


@pytest.mark.parametrize("late", ["base", "release"])
def test_work_begins_before_all_has_come(
    online: FakeHub, world: World, out: Path, late: str
) -> None:
    """The last file is not sent before the first of the rebuilt ones is complete."""
    first = out.with_name("out.partial") / "new" / FIRST
    held: list[bool] = []

    def how(request: Request, answer: Answer) -> None:
        until = time.monotonic() + 20
        while not first.exists() and time.monotonic() < until:
            time.sleep(0.01)
        held.append(first.exists())

    to_the_end(online, world.shard(3) if late == "base" else world.payload(-1), how)
    assert apply(out).code == 0
    assert held == [True]
    assert {n: d for n, d in digests(out).items() if n in digests(world.tune)} == digests(
        world.tune
    )


def test_a_revision_that_moves_meanwhile_is_pinned(
    online: FakeHub, world: World, out: Path
) -> None:
    def move(request: Request, answer: Answer) -> None:
        online.put(BASE, files_of(world.wrong))
        online.put(RELEASE, {"README.md": b"gone"})

    to_the_end(online, world.shard(1), move)
    assert apply(out).code == 0


# Interruption.


def begin(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_who_was_stopped_goes_on_without_downloading_again(
    online: FakeHub, world: World, out: Path, how: signal.Signals
) -> None:
    slowly(online, world.shard(2))
    first = out.with_name("out.partial") / "new" / FIRST
    process = begin(out)
    until = time.monotonic() + 30
    while not first.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(how)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == (130 if how is signal.SIGINT else -9)
    assert TRACEBACK not in stderr
    if how is signal.SIGINT:
        assert json.loads(stdout)["error"]["type"] == "Interrupted"
    assert not out.exists()
    before = set(whole(online))
    online.requests.clear()
    online.rewritings.clear()
    done = apply(out)
    assert done.code == 0, done.stderr
    assert done.json["kept"] == [FIRST]
    again = dict(wholes(online))
    # What had come is not asked for; what was coming, from where it was.
    assert all(span != "bytes=0-" for content, span in again.items() if content in before)
    assert world.shard(2) in again
    assert world.shard(1) not in again


@pytest.mark.parametrize("threads", ["1", "4"])
def test_one_download_that_fails_ends_the_run_at_once(
    online: FakeHub, world: World, out: Path, threads: str
) -> None:
    slowly(online, world.shard(1))
    to_the_end(online, world.shard(3), lambda request, answer: Answer(451))
    began = time.monotonic()
    told = refused(8, out, "--threads", threads)
    assert time.monotonic() - began < 20
    assert told == (
        f'{BASE}: "model-00003-of-00004.safetensors" did not arrive ({online.url} answered '
        "451 Unavailable For Legal Reasons); try again later"
    )
    online.rewritings.clear()
    assert apply(out).code == 0


@pytest.mark.parametrize("exception", [KeyboardInterrupt, ReleaseKitError])
def test_a_caller_who_gives_up_is_not_kept_waiting(
    online: FakeHub, world: World, out: Path, exception: type[BaseException]
) -> None:
    slowly(online, world.shard(1))

    def stop(progress: Progress) -> None:
        if progress.stage == "download" and progress.done > 100_000:
            raise exception

    began = time.monotonic()
    with pytest.raises(exception):
        apply_delta(BASE, RELEASE, out, progress=stop)
    assert time.monotonic() - began < 20
    online.rewritings.clear()
    apply_delta(BASE, RELEASE, out)


def test_a_full_disk_is_known_before_anything_comes(
    online: FakeHub, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("releasekit.output.free_nbytes", lambda path: 3_000_000)
    told = refused(1, out)
    assert re.fullmatch(
        rf"{tmp_path}/hf/hub/models--\S+: expected [\d,]+ bytes free, found 3,000,000: "
        "free some space, or set HF_HOME to a folder on another disk",
        told,
    )
    assert whole(online) == []


def test_files_that_come_by_xet_alone(
    xet_hub: FakeHub, world: World, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", HEAD)
    xet_hub.put(BASE, files_of(world.base))
    xet_hub.put(RELEASE, files_of(world.releases["ulp"]))
    assert apply(out).code == 0
    assert xet_hub.asked(world.shard(1)) == []


# What goes wrong on the way.


PASSING: dict[str, dict[str, Any]] = {
    "429": {"status": 429},
    "503": {"status": 503, "headers": {"Retry-After": "0"}},
    "cut": {"cut": 50},
    "reset": {"cut": 50, "reset": True},
    "before": {"before": True},
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_borne(online: FakeHub, world: World, out: Path, fault: str) -> None:
    """Each file meets it twice: while it is looked at, and as it comes."""
    for number in range(1, 4):
        online.fault(match=world.shard(number), **PASSING[fault])
        online.fault(match=world.shard(number), skip=6, **PASSING[fault])
    online.expire_downloads(3)
    assert apply(out).code == 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize("place", [20, -1])
@pytest.mark.parametrize("of", ["base", "release"])
def test_a_flipped_byte_in_a_file_is_found(
    online: FakeHub, world: World, out: Path, of: str, place: int
) -> None:
    match = world.shard(2) if of == "base" else world.payload(1)
    to_the_end(online, match, flip(place))
    told = refused(5, out)
    assert re.fullmatch(
        r"\S+: expected [0-9a-f]{64}, the digest of \S+ in \S+, found [0-9a-f]{64}; it was "
        "removed: run again",
        told,
    )
    online.rewritings.clear()
    assert apply(out).code == 0


@pytest.mark.sampled(3)
@pytest.mark.parametrize("place", [0, 100, 900, 20_000, HEAD - 1])
@pytest.mark.parametrize("of", ["base", "release"])
def test_a_flipped_byte_in_what_is_read_before_is_found(
    online: FakeHub, world: World, out: Path, of: str, place: int
) -> None:
    """Whatever it does to the header, it is refused in the end, and never believed."""
    match = world.shard(2) if of == "base" else world.payload(1)
    online.rewrite(match, flip(place), times=1)  # the first request is for the head
    done = apply(out)
    assert done.code in (3, 4, 5), done.stderr
    if place >= 20_000 or done.code == 5:
        assert (
            ": bytes 0 to 131072 were others before: the Hub, or a proxy, does not tell "
            "the same twice; try again, elsewhere if it stays so"
        ) in done.error


def test_a_header_that_is_not_what_the_manifest_says_is_found(
    online: FakeHub, world: World, out: Path
) -> None:
    """The Hub lists the digest of what it has: known before anything comes."""
    files = files_of(world.releases["ulp"])
    name = next(name for name in files if name.endswith(".safetensors"))
    path = files[name]
    assert isinstance(path, Path)
    data = path.read_bytes()
    online.put(RELEASE, files | {name: data[:-1] + bytes([data[-1] ^ 1])})
    told = refused(5, out)
    assert "as the publisher lists them, found" in told
    assert told.endswith("it was damaged or changed there; tell the publisher")
    assert whole(online) == []


def test_files_of_no_known_digest_are_held_against_the_manifest(
    online: FakeHub, world: World, out: Path
) -> None:
    def without(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"rfilename": path_of(e), "size": e["size"]} for e in entries]

    online.listing(without)
    to_the_end(online, world.payload(1), flip(-1))
    told = refused(5, out)
    assert ": expected " in told
    assert told.endswith(": delete it and run again")
    online.rewritings.clear()
    (damaged,) = {Path(told.partition(": ")[0]).resolve()}
    damaged.unlink()
    online.listing(without)
    assert apply(out).code == 0


def test_a_mirror_that_lists_no_sizes(online: FakeHub, out: Path) -> None:
    online.listing(lambda entries: [{"rfilename": path_of(e)} for e in entries])
    assert apply(out).code == 0


def test_a_server_that_knows_no_ranges(online: FakeHub, out: Path) -> None:
    def no_ranges(request: Request, answer: Answer) -> None:
        if answer.status == 206:
            assert isinstance(answer.body, Part)
            nbytes = answer.body.path.stat().st_size
            answer.status, answer.body = 200, replace(answer.body, start=0, end=nbytes)
            answer.set("Content-Range", None)

    online.rewrite("/cdn/", no_ranges)
    told = refused(8, out)
    assert "found the whole file in place of a range); it knows no ranges: run " in told
    name = told.partition(":")[0]
    assert f"`releasekit fetch {name}` first" in told
    good("fetch", BASE)
    good("fetch", RELEASE)
    assert apply(out).code == 0


@pytest.mark.parametrize("who", ["private", "gated"])
def test_who_is_not_let_in(
    online: FakeHub, out: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    setattr(online.repos[BASE], who, True)
    assert "log in: hf auth login" in refused(8, out)
    assert whole(online) == []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert apply(out).code == 0
    assert online.leaked() == []


def test_a_hub_that_stays_silent(online: FakeHub, world: World, out: Path) -> None:
    online.fault(match=world.shard(2), before=True, times=math.inf)
    told = refused(8, out)
    assert re.fullmatch(
        rf'{BASE}: "model-00002-of-00004.safetensors" could not be read '
        rf"\({online.url} could not be reached \(ReadError: .*\)\); connect to the "
        "network.*",
        told,
    )
    assert len(online.asked(world.shard(2))) == 5


def test_offline_once_all_is_here(
    online: FakeHub, world: World, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good("fetch", BASE)
    good("fetch", RELEASE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert apply(out).code == 0


# Whose it is.


def test_a_signed_release_by_name(online: FakeHub, world: World, out: Path) -> None:
    online.put(RELEASE, files_of(world.releases["signed"]))
    key = ("--public-key", world.root / "key.pub.pem")
    assert apply(out, *key).json["signature"]["status"] == "signed"


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        ("signed", "key", 6),
        ("ulp", "key", 6),
        ("signed", "stray", 5),
        ("signed", "stray weights", 5),
        ("signed", "missing", 5),
        ("signed", "changed", 5),
    ],
)
def test_a_release_that_is_not_the_publishers_is_refused_before_weights_come(
    online: FakeHub, world: World, out: Path, kind: str, change: str, code: int
) -> None:
    files = files_of(world.releases[kind])
    name = next(name for name in files if name.endswith(".safetensors"))
    if change == "stray":
        files["run.py"] = b"import os"
    elif change == "stray weights":
        files["more.safetensors"] = (2).to_bytes(8, "little") + b"{}"
    elif change == "missing":
        del files[name]
    elif change == "changed":
        path = files[name]
        assert isinstance(path, Path)
        files[name] = path.read_bytes()[:-1] + b"!"
    online.put(RELEASE, files)
    key = "other" if (kind, change) == ("signed", "key") else "key"
    refused(code, out, "--public-key", world.root / f"{key}.pub.pem")
    assert whole(online) == []
