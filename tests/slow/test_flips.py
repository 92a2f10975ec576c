"""One byte of a signed release changed, ten times as often as in tests/integration."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.integration.test_flips import REGIONS, Flips, check_signed

pytestmark = pytest.mark.slow

FLIPS = 20_000
SEED = 2


@pytest.fixture(scope="module")
def signed() -> Iterator[Flips]:
    with TemporaryDirectory() as name:
        yield Flips(Path(name), signed=True)


@pytest.mark.parametrize("region", REGIONS)
def test_a_changed_byte_of_a_signed_release(signed: Flips, region: str) -> None:
    outcomes = check_signed(signed, region, FLIPS * REGIONS[region] // 200, SEED)
    print(f"{region}: {outcomes['refused']} refused, {outcomes['rebuilt']} rebuilt")
