"""Where a run takes place: programs, machine, disk; and what of that is private.

Nothing heavy is loaded to find out, and what cannot be found out is None: a report is
wanted most where something is broken.
"""

from __future__ import annotations

import os
import platform
import pwd
import resource
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from releasekit.redaction import Private, secrets_of

#: Packages on which a result, or a failure, may depend, by the names of their modules.
_PACKAGES: Final = {
    "releasekit": "releasekit",
    "numpy": "numpy",
    "torch": "torch",
    "safetensors": "safetensors",
    "numba": "numba",
    "llvmlite": "llvmlite",
    "pcodec": "pcodec",
    "blake3": "blake3",
    "cryptography": "cryptography",
    "click": "click",
    "huggingface-hub": "huggingface_hub",
    "hf-xet": "hf_xet",
    "ray": "ray",
    "transformers": "transformers",
}
#: What variables are called that change what a run does. Their values stay here.
_VARIABLES: Final = (
    *("AWS_", "CUDA_", "HF_", "HUGGING", "NUMBA_", "OMP_", "RAY_", "RELEASEKIT_", "XDG_"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SOURCE_DATE_EPOCH", "TMPDIR"),
)
_MEMORY_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
_MOUNTS: Final = Path("/proc/self/mounts")


def python() -> str:
    """Which Python this is: `3.12.3`."""
    return platform.python_version()


def system() -> str:
    """Which system this is: `Linux-6.8.0-x86_64-with-glibc2.39`."""
    return platform.platform()


def own_version() -> str | None:
    """The version of releasekit."""
    return _version("releasekit")


def programs() -> dict[str, object]:
    """Versions of what is installed, and whether a run has loaded it."""
    return {
        "python": {"version": python(), "implementation": platform.python_implementation()},
        **{
            name: {"version": found, "loaded": module in sys.modules}
            for name, module in _PACKAGES.items()
            if (found := _version(name)) is not None
        },
    }


def machine() -> dict[str, object]:
    """System, processors and memory; sizes in bytes."""
    kernel = platform.uname()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # macOS counts bytes, others KiB: getrusage(2).
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "system": kernel.system,
        "release": kernel.release,
        "machine": kernel.machine,
        "platform": system(),
        "processors": os.cpu_count(),
        "usable_processors": _usable(),
        "memory_nbytes": _memory("SC_PHYS_PAGES"),
        "free_memory_nbytes": _memory("SC_AVPHYS_PAGES"),
        "memory_limit_nbytes": _memory_limit(),
        "peak_memory_nbytes": usage.ru_maxrss * unit,
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 3),
    }


def disk(path: Path) -> dict[str, object]:
    """The disk on which a file or folder is, or would be; sizes in bytes."""
    absolute = path.absolute()
    here = next(one for one in (absolute, *absolute.parents) if os.path.exists(one))
    try:
        usage = shutil.disk_usage(here)
    except OSError:
        return {"path": path}
    return {
        "path": path,
        "free_nbytes": usage.free,
        "total_nbytes": usage.total,
        "file_system": _file_system(here),
    }


def variables(environment: Mapping[str, str]) -> list[str]:
    """Names of variables that are set, and matter."""
    return sorted(name for name in environment if name.upper().startswith(_VARIABLES))


def private(environment: Mapping[str, str], paths: Iterable[object]) -> Private:
    """What is known of this user and machine, and must not leave it.

    Args:
        environment: variables by name.
        paths: values of options: paths, and other text that may be one.
    """
    homes = {environment.get("HOME", ""), os.path.expanduser("~")}
    users = {environment.get(name, "") for name in ("LOGNAME", "USER", "SUDO_USER")}
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:  # a container may run as somebody who is in no list
        pass
    else:
        homes.add(entry.pw_dir)
        users |= {entry.pw_name, entry.pw_gecos.partition(",")[0]}
    homes = {home for home in homes if os.path.isabs(home)}
    homes |= {os.path.realpath(home) for home in homes}
    users |= {os.path.basename(home) for home in homes}
    names = {socket.gethostname(), environment.get("HOSTNAME", "")}
    names |= {name.partition(".")[0] for name in names}
    return Private(
        secrets=secrets_of(environment),
        homes=tuple(sorted(homes)),
        users=tuple(sorted(filter(None, users))),
        hosts=tuple(sorted(filter(None, names))),
        paths=tuple(sorted({form for path in paths for form in _forms(path)})),
    )


def _forms(value: object) -> Iterator[str]:
    """A path as it was given, from the root, and without links."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _forms(item)
    elif isinstance(value, os.PathLike) or (isinstance(value, str) and "/" in value):
        text = os.fspath(value)
        if isinstance(text, str) and "\0" not in text and "://" not in text:
            yield from (text, os.path.abspath(text), os.path.realpath(text))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _usable() -> int | None:
    # `pipeline` knows this, too, but loads numpy.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count()


def _memory(pages: str) -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf(pages)
    except (OSError, ValueError):  # not every system counts them
        return None


def _memory_limit() -> int | None:
    """Of the container, as Linux's control groups have it: `max` or bytes."""
    try:
        text = _MEMORY_LIMIT.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _file_system(path: Path) -> str | None:
    """Which kind of file system a path is on, as Linux lists them: proc_mounts(5)."""
    try:
        rows = [row.split(" ") for row in _MOUNTS.read_text().splitlines()]
    except OSError:
        return None
    real = f"{os.path.realpath(path).rstrip('/')}/"
    kinds = {
        row[1].encode().decode("unicode_escape"): row[2] for row in rows if len(row) > 2
    }
    mounts = [place for place in kinds if real.startswith(f"{place.rstrip('/')}/")]
    return kinds[max(mounts, key=len)] if mounts else None
