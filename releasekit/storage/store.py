"""A folder in object storage, through fsspec: https://filesystem-spec.readthedocs.io.

An object appears whole or not at all, and takes the place of one of its name, so nothing
here needs a temporary name. What goes wrong is an `OSError` with the object's address, as
it is for files; what fsspec's backends raise instead becomes one.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from releasekit.digest import sha256_hex
from releasekit.errors import UsageError
from releasekit.names import safe_path
from releasekit.storage.address import split, text

#: Which extra brings what a scheme needs.
_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
#: What tells an object from one that took its place, in the words of several stores.
_STATE: Final = ("size", "ETag", "etag", "generation", "md5Hash", "blob_id", "created")
#: Errors of backends that are no `OSError`, by the module that has them once it is used.
_FAULTS: Final = (
    ("botocore.exceptions", ("BotoCoreError", "ClientError")),
    ("aiohttp", ("ClientError",)),
    ("gcsfs.retry", ("HttpError",)),
    ("google.auth.exceptions", ("GoogleAuthError",)),
    ("huggingface_hub.errors", ("HfHubHTTPError",)),
    ("httpx", ("HTTPError",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object.

    Attributes:
        nbytes: its size.
        state: changes if another takes its place.
    """

    nbytes: int
    state: str


class Store:
    """A folder in object storage: all objects whose names begin so."""

    def __init__(self, place: str | Path) -> None:
        """Prepare; nothing is asked of it yet.

        Raises:
            UsageError: if the scheme is unknown, or what it needs is not installed.
        """
        scheme, self._root = split(place)
        self.url = text(place)
        self._fs = _file_system(scheme)

    def files(self) -> dict[str, Stored]:
        """The objects in it, by their paths in it.

        Raises:
            FormatError: if a name is not safe to write to a disk.
            OSError: if it cannot be listed.
        """
        with self._told():
            try:
                found: Mapping[str, Any] = self._fs.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
        prefix = f"{self._fs._strip_protocol(self._root)}/"
        files = {}
        for path, info in sorted(found.items()):
            # Some tools make objects that stand for folders.
            if path.startswith(prefix) and not path.endswith("/"):
                name = safe_path(path.removeprefix(prefix), self.url)
                files[name] = _stored(info)
        return files

    def info(self, name: str = "") -> Stored | None:
        """One object; None if there is none of that name."""
        with self._told(name):
            try:
                info = self._fs.info(self._path(name))
            except FileNotFoundError:
                return None
        return _stored(info) if info.get("type") == "file" else None

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of an object; fewer if it ends before."""
        with self._told(name):
            data: bytes = self._fs.cat_file(self._path(name), start=start, end=stop)
        return data

    def read_all(self, name: str) -> bytes:
        """All of a small object."""
        with self._told(name):
            data: bytes = self._fs.cat_file(self._path(name))
        return data

    def download(self, name: str, path: Path) -> None:
        """Write an object to a file."""
        with self._told(name):
            self._fs.get_file(self._path(name), str(path))

    def upload(self, path: Path, name: str) -> None:
        """Make a file an object."""
        with self._told(name):
            self._fs.put_file(str(path), self._path(name))

    def write(self, name: str, data: bytes) -> None:
        """Make an object of some bytes."""
        with self._told(name):
            self._fs.pipe_file(self._path(name), data)

    def copy(self, name: str, to: Store, final: str) -> None:
        """Have the store copy an object; its bytes do not come here."""
        with self._told(name):
            self._fs.cp_file(self._path(name), to._path(final))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, if they are there."""
        for name in names:
            with self._told(name):
                try:
                    self._fs.rm_file(self._path(name))
                except FileNotFoundError:
                    continue

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _told(self, name: str = "") -> Iterator[None]:
        """Have errors say which object they are about."""
        address = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except FileNotFoundError:
            raise
        except _faults() as error:
            number = getattr(error, "errno", None) or errno.EIO
            words = " ".join(str(error).split()) or type(error).__name__
            raise OSError(number, words, address) from error


def _stored(info: Mapping[str, Any]) -> Stored:
    state = repr([(key, str(info[key])) for key in _STATE if key in info])
    return Stored(nbytes=int(info["size"] or 0), state=sha256_hex(state.encode()))


@lru_cache
def _file_system(scheme: str) -> Any:
    """What reaches a scheme's stores; settings are those of fsspec and the backends."""
    import fsspec

    try:
        # Whoever writes, here or elsewhere, must be seen at once.
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        how = f"pip install 'releasekit[{extra}]'" if extra else str(error)
        raise UsageError(f"{scheme}://: what reaches it is not installed: {how}") from None
    except ValueError:
        raise UsageError(
            f"{scheme}://: is no store that fsspec knows; expected s3://, gs://, hf://"
        ) from None


def _faults() -> tuple[type[Exception], ...]:
    """Errors of the system, and of backends that are in use."""
    found: list[type[Exception]] = [
        getattr(sys.modules[module], name)
        for module, names in _FAULTS
        if module in sys.modules
        for name in names
        if hasattr(sys.modules[module], name)
    ]
    return (OSError, *found)
