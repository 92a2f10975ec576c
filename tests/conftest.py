"""Settings for all tests, and what several of them need."""

import gc
import os
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fakehub import FakeHub

# No deadline, nor one for making examples: a busy machine is not a failing test.
# `--hypothesis-profile=deep` is for a search that may take its time.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("patient"), max_examples=60)
settings.register_profile("deep", settings.get_profile("patient"), max_examples=5000)
# For scripts/fuzz, which gives a seed; CI variables are not to put another in its place.
settings.register_profile(
    "fuzz",
    settings.get_profile("patient"),
    max_examples=250,
    derandomize=False,
    print_blob=True,
)
settings.load_profile("quick")

#: Where certificates are looked for.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_USERS = {name: os.environ[name] for name in _CERTIFICATES if name in os.environ}


@pytest.hookimpl(tryfirst=True)  # before what is slow is left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of `sampled(n)` tests, all cases but every n-th are slow."""
    seen: Counter[str] = Counter()
    for item in items:
        if (sampled := item.get_closest_marker("sampled")) is not None:
            test = item.nodeid.partition("[")[0]
            if seen[test] % sampled.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting makes stays until the end, so no garbage is looked for in it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Not the user's: also for fixtures that several tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        # Each of hundreds of children would compile the whole package for itself.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        # Nothing waits for the disk: what is lost with the power is not tested here.
        patch.setattr(os, "fsync", lambda fd: None)
        patch.setattr(os, "fdatasync", lambda fd: None, raising=False)
        yield


@pytest.fixture(scope="session")
def _configs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of folders: counted, for which `mktemp` would go through all that are there."""
    root = tmp_path_factory.mktemp("configs")
    return (root / str(number) for number in count())


@pytest.fixture(autouse=True)
def config(_configs: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of the test's own: nobody is trusted, nothing was seen."""
    folder = next(_configs)
    folder.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that this process and its children take for the real one; nothing is cached.

    The cache is `tmp_path / "hf" / "hub"`.
    """
    from huggingface_hub import close_session, constants

    home = tmp_path / "hf"
    with FakeHub(tmp_path / "fakehub") as fake:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
            monkeypatch.setenv(name, "1")
            monkeypatch.setattr(constants, name, True)
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        monkeypatch.setenv("HF_HOME", str(home))
        # It speaks plain HTTP, for which each session would read all certificates.
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "fakehub"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        # huggingface_hub read its variables when it was imported.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr("releasekit.hub.answers.FIRST_WAIT", 0.01)
        close_session()  # it may know the proxies of before
        yield fake
        close_session()


@pytest.fixture
def xet_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The same with Xet: this process and its children store and fetch chunks."""
    pytest.importorskip("hf_xet")
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_DISABLE_XET")
    monkeypatch.delenv("SSL_CERT_DIR")  # its client does not do without certificates
    for name, value in _USERS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    try:
        from huggingface_hub.utils._xet import XET_CONNECTION_INFO_CACHE
    except ImportError:
        pytest.skip("this huggingface_hub cannot stream Xet; a newer one is tested too")
    XET_CONNECTION_INFO_CACHE.clear()  # another Hub may have had this address
    hub.xet = True
    return hub
