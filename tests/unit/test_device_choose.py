"""Names of devices: which there are, which are here, and what they stand for."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from releasekit import UsageError
from releasekit.codec import ulp
from releasekit.device.choose import (
    AUTO,
    Engine,
    check_device,
    engines,
    explain,
    resolve,
)
from releasekit.device.combine import DeviceCombine
from releasekit.pipeline import aligned

NAMES = ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:1", "cuda:12", "cuda:all"]
NO_NAMES = [
    *(
        "",
        " ",
        "gpu",
        "nonsense",
        "CPU",
        "Auto",
        "CUDA",
        "cpu ",
        " cpu",
        "cpu\n",
        "auto,cpu",
    ),
    *("cpu:0", "mps:0", "auto:0", "meta", "xpu", "cudaall", "cuda0", "cuda:", "cuda::0"),
    *("cuda:-1", "cuda:+1", "cuda:a", "cuda:ALL", "cuda:0x1", "cuda:1.0", "cuda:0,1"),
    *("cuda:0 ", "cuda: 0", "cuda:99999", "cuda:all:0", "cuda:٣", "cuda:0\n"),
]


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were three, of which the second is torch's current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def cuda(*numbers: int) -> list[torch.device]:
    return [torch.device("cuda", number) for number in numbers]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_accepted_whether_or_not_it_is_here(name: str) -> None:
    assert check_device(name) == name


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("ask", [check_device, resolve, engines])
def test_other_names_are_refused(name: str, ask: Callable[[str], object]) -> None:
    with pytest.raises(UsageError) as caught:
        ask(name)
    assert str(caught.value) == (
        f"device: expected auto, cpu, cuda, cuda:0, cuda:all or mps, found {name!r}"
    )


@pytest.mark.parametrize("name", ["auto", "cpu"])
@pytest.mark.usefixtures("three_gpus")
def test_the_processor_adds_unless_a_device_is_named(name: str) -> None:
    assert resolve(name) == []
    assert engines(name) == [Engine()]
    engine = engines(name)[0]
    assert (engine.combine, engine.allocate, engine.host_nbytes) == (
        *(ulp.combine, aligned),
        0,
    )


def test_people_are_told_what_auto_means() -> None:
    assert explain(AUTO).startswith("cpu (auto: ")
    assert [explain(name) for name in NAMES[1:]] == NAMES[1:]


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "cuda:all"])
@pytest.mark.parametrize("ask", [resolve, engines])
@pytest.mark.usefixtures("no_gpu")
def test_there_is_no_cuda_here(name: str, ask: Callable[[str], object]) -> None:
    with pytest.raises(UsageError) as caught:
        ask(name)
    assert str(caught.value) == (
        f"device: torch {torch.__version__} finds no CUDA device here: use --device cpu, "
        "or install a build of torch for this machine's GPU"
    )


@pytest.mark.usefixtures("three_gpus")
def test_a_build_that_sees_no_devices_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="finds no CUDA device here"):
        resolve("cuda:all")


@pytest.mark.usefixtures("no_gpu")
def test_there_is_no_mps_here() -> None:
    with pytest.raises(UsageError) as caught:
        resolve("mps")
    assert str(caught.value) == "device: torch finds no mps here; use --device cpu"


def test_mps_is_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve("mps") == [torch.device("mps")]


@pytest.mark.usefixtures("three_gpus")
def test_names_become_devices() -> None:
    assert resolve("cuda") == cuda(1)
    assert resolve("cuda:0") == cuda(0)
    assert resolve("cuda:2") == cuda(2)
    assert resolve("cuda:all") == cuda(0, 1, 2)


@pytest.mark.parametrize("name", ["cuda:3", "cuda:9999"])
@pytest.mark.usefixtures("three_gpus")
def test_a_number_beyond_the_last_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(name)
    assert str(caught.value) == (
        f"device: expected cuda:0 to cuda:2, found {name}: this machine has 3"
    )


@pytest.mark.usefixtures("three_gpus")
def test_each_device_has_an_engine() -> None:
    found = engines("cuda:all")
    adders = [engine.combine for engine in found]
    assert all(isinstance(adder, DeviceCombine) for adder in adders)
    assert [a.device for a in adders if isinstance(a, DeviceCombine)] == cuda(0, 1, 2)
    assert all(engine.host_nbytes > 0 for engine in found)
    assert all(engine.allocate is not aligned for engine in found)


def test_torch_stays_away_until_a_device_is_named() -> None:
    code = """
import sys
from releasekit import UsageError
from releasekit.device import choose

for name in ("auto", "cpu"):
    choose.engines(name)
    choose.resolve(name)
for name in ("auto", "cpu", "mps", "cuda", "cuda:1", "cuda:all"):
    choose.check_device(name)
    choose.explain(name)
try:
    choose.engines("nonsense")
except UsageError:
    pass
else:
    raise SystemExit("no error")
raise SystemExit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
