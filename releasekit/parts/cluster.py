"""Parts on a Ray cluster: https://docs.ray.io/en/latest/ray-core/tasks.html.

A part is a Ray task, not an actor: Ray gives a task that was lost with its worker or its
machine to another, by itself. Each says what it takes of a machine, so that Ray fills them
all and none beyond what it has. What a part raises comes back as a value, with the machine
that it came from: Ray would wrap it, and some errors are worth another machine, such as
that of a full disk.

Progress goes through one actor on the driver's machine, which is asked now and then. If it
is lost, nothing else is.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, Self

from releasekit import errors
from releasekit.errors import ReleaseKitError, UsageError
from releasekit.parts.records import Done
from releasekit.parts.tasks import PART_THREADS, Advance, Batch, Needs, Task, perform

#: How often a part is begun again that was lost with its worker or its machine.
_RETRIES: Final = 5
#: How often a part is given to another machine, since one could not write or read.
_MACHINES: Final = 3
_POLL: Final = 0.5  # seconds
_NODE: Final = "ray.io/node-id"
#: An address that only this machine reaches, and that Ray does not take for a slip: it
#: would put one that others reach in the place of 127.0.0.1.
_LOOPBACK: Final = "127.0.0.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    """Why a part could not be done."""

    kind: str
    message: str
    host: str
    node: str

    def error(self) -> ReleaseKitError:
        kind = getattr(errors, self.kind, ReleaseKitError)
        found: ReleaseKitError = kind(f"on {self.host}: {self.message}")
        return found


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """A part that somebody has."""

    task: Task
    avoid: list[str] = field(default_factory=list)


class Cluster:
    """A Ray cluster; a context manager, which leaves one alone that was there before."""

    threads: int | None = PART_THREADS

    def __init__(self, address: str | None = None) -> None:
        """Prepare.

        Args:
            address: the cluster's, as `ray.init` takes it; None for the one that
                RAY_ADDRESS names, or else for one of this machine alone.
        """
        self._address = address
        self._opened = ExitStack()
        self._tally: Any = None

    def __enter__(self) -> Self:
        alone = self._address is None and "RAY_ADDRESS" not in os.environ
        with ExitStack() as stack:
            if alone:
                stack.enter_context(_environment(_alone()))
            try:
                import ray
            except ImportError:
                raise UsageError(
                    "--engine ray: Ray is not installed here: pip install 'releasekit[ray]'"
                ) from None
            if not ray.is_initialized():
                self._connect(alone)
                stack.callback(ray.shutdown)
            self._opened = stack.pop_all()
        return self

    def _connect(self, alone: bool) -> None:
        import ray

        own: dict[str, Any] = {"include_dashboard": False} if alone else {}
        if alone and sys.platform == "linux":  # elsewhere it does so by itself
            own["_node_ip_address"] = _LOOPBACK
        try:
            ray.init(
                # By its name: else Ray looks for one that was here, and may be gone.
                address="local" if alone else self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ReleaseKitError(
                f"no Ray cluster at {self._address or 'this machine'}: "
                f"{str(error).splitlines()[0]}: start one with `ray start --head`, or give "
                "its address as --engine ray:HOST:PORT"
            ) from error

    def __exit__(self, *exc: Any) -> None:
        if self._tally is not None:
            import ray

            ray.kill(self._tally)
            self._tally = None
        self._opened.close()

    def run(self, batch: Batch[Any], advance: Advance) -> Iterator[Done]:
        """See `Pool.run`.

        Raises:
            UsageError: if no machine has what a part needs.
            ReleaseKitError: what a part raised, with the machine's name; or if one was
                lost too often.
        """
        import ray

        _require_machine(batch.needs)
        if self._tally is None:
            self._tally = _tally()
        tally = _Progress(self._tally, advance)
        running: dict[Any, _Attempt] = {}

        def begin(attempt: _Attempt) -> None:
            part = _remote(batch.needs, attempt.avoid)
            told = (batch.work, batch.spec, attempt.task, tally.told, _version())
            running[part.remote(*told)] = attempt

        try:
            for task in sorted(batch.tasks, key=lambda task: -task.nbytes):
                begin(_Attempt(task=task))
            while running:
                ready, _ = ray.wait(list(running), timeout=_POLL)
                tally.ask()
                for ref in ready:
                    attempt = running.pop(ref)
                    result = _result(ref, attempt.task)
                    if isinstance(result, Done):
                        tally.finish(attempt.task)
                        yield result
                        continue
                    attempt.avoid.append(result.node)
                    if result.kind != OSError.__name__ or not _others(attempt.avoid):
                        raise result.error()
                    begin(attempt)
        finally:
            for ref in running:
                ray.cancel(ref, force=True)


def _alone() -> dict[str, str]:
    """Settings of a cluster that is for this process alone.

    Ray opens some ports to everyone, and runs what it is sent there, unless asked for a
    token: https://docs.ray.io/en/latest/ray-security/token-auth.html.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Have variables of the environment set, but for those that the user has."""
    ours = {name: text for name, text in settings.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _version() -> str:
    return version("releasekit")


def _remote(needs: Needs, avoid: list[str]) -> Any:
    """The function that does a part, where there is what it needs."""
    import ray
    from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

    strategy: Any = "SPREAD"
    if avoid:
        strategy = NodeLabelSchedulingStrategy(hard={_NODE: NotIn(*avoid)})
    return ray.remote(_do_part).options(
        num_cpus=needs.processors,
        memory=needs.memory_nbytes,
        num_gpus=needs.gpus,
        max_retries=_RETRIES,
        scheduling_strategy=strategy,
    )


def _do_part(
    work: Any, spec: Any, task: Task, told: tuple[Any, str], made_with: str
) -> object:
    """Do a part in a worker of Ray's; returns what became of it."""
    import ray

    host = socket.gethostname()
    node = ray.get_runtime_context().get_node_id()
    (tally, batch), last, waiting = told, 0.0, 0

    def advance(nbytes: int) -> None:
        nonlocal last, waiting
        waiting += nbytes
        if time.monotonic() - last > _POLL:
            tally.add.remote(batch, task.name, waiting)
            last, waiting = time.monotonic(), 0

    try:
        if _version() != made_with:
            raise ReleaseKitError(
                f"has releasekit {_version()}, and the driver {made_with}: install the "
                "same everywhere"
            )
        tally.begin.remote(batch, task.name)
        return perform(work, spec, task, advance)
    except ReleaseKitError as error:
        kind, message = type(error).__name__, str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        kind, message = OSError.__name__, f"{where}{error.strerror or error}"
    return _Failed(kind=kind, message=message, host=host, node=node)


def _result(ref: Any, task: Task) -> Done | _Failed:
    """What became of a part."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        found: Done | _Failed = ray.get(ref)
    except RayTaskError:
        raise  # a bug, with its traceback
    except RayError as error:
        raise ReleaseKitError(
            f"{task.name}: was lost {_RETRIES + 1} times with its worker or machine, the "
            f"last time so: {str(error).splitlines()[0]}: see whether the machines have "
            "memory enough for --max-memory; run again, and finished parts are kept"
        ) from error
    return found


def _others(avoid: list[str]) -> bool:
    """Whether it is worth trying another machine, and there is one."""
    import ray

    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return len(avoid) < _MACHINES and bool(alive - set(avoid))


def _require_machine(needs: Needs) -> None:
    """Refuse parts that Ray would have wait for ever."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": needs.processors, "memory": needs.memory_nbytes, "GPU": needs.gpus}
    if any(all(m.get(r, 0) >= n for r, n in wanted.items()) for m in machines):
        return
    most = {r: max((m.get(r, 0) for m in machines), default=0) for r in wanted}
    raise UsageError(
        f"the cluster: expected a machine with {needs.processors} processors, "
        f"{needs.memory_nbytes:,} bytes of memory and {needs.gpus:g} GPUs, found at most "
        f"{most['CPU']:g}, {most['memory']:,.0f} and {most['GPU']:g}: lower --threads or "
        "--max-memory, or use a larger cluster"
    )


class _Tally:
    """Bytes that were done of each part; an actor."""

    def __init__(self) -> None:
        self._batch = ""
        self._done: dict[str, int] = {}

    def begin(self, batch: str, name: str) -> None:
        """A part begins, perhaps again; of an earlier batch nobody wants to know."""
        if batch != self._batch:
            self._batch, self._done = batch, {}
        self._done[name] = 0

    def add(self, batch: str, name: str, nbytes: int) -> None:
        """More of a part is done."""
        if batch == self._batch:
            self._done[name] = self._done.get(name, 0) + nbytes

    def read(self, batch: str) -> dict[str, int]:
        """What is done of each part."""
        return self._done if batch == self._batch else {}


def _tally() -> Any:
    """The actor, on the driver's machine; it takes no processor."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=True)
    return ray.remote(_Tally).options(num_cpus=0, scheduling_strategy=strategy).remote()


class _Progress:
    """Tells the driver's caller what the actor was told."""

    def __init__(self, actor: Any, advance: Advance) -> None:
        self.told = actor, secrets.token_hex(8)  # other batches have parts of those names
        self._advance = advance
        self._told: dict[str, int] = {}
        self._finished: set[str] = set()

    def ask(self) -> None:
        """Tell what is new; nothing if nobody answers."""
        import ray
        from ray.exceptions import RayError

        try:
            actor, batch = self.told
            found: dict[str, int] = ray.get(actor.read.remote(batch), timeout=_POLL)
        except RayError:
            return
        for name, nbytes in found.items():
            if name not in self._finished:
                self._tell(name, nbytes)

    def finish(self, task: Task) -> None:
        """A part is done."""
        self._finished.add(task.name)
        self._tell(task.name, task.nbytes)

    def _tell(self, name: str, nbytes: int) -> None:
        self._advance(nbytes - self._told.get(name, 0))
        self._told[name] = nbytes
