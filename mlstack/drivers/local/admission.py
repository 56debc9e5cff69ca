"""Admission of parallel stages: a stage begins when its share of its pool and of the machine is free."""

import threading
from collections.abc import Callable, Mapping

from mlstack.drivers.local.capacity import capacity_of, fitting_gpus, need_of
from mlstack.drivers.local.machine import Gpu, Machine, describe_machine
from mlstack.graph.graph import ResourceGraph
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Stage

LOOK_AT_STOP = 0.2
_ROUNDING = 1e-9


class Slots:
    """Shares of named capacities, given to one taker at a time for all it needs: nobody waits while holding.

    First come, first served: one that has to wait is not overtaken by a later one that wants any of the same
    capacities, so that a large need is met as soon as the earlier ones are done. Safe for threads.
    """

    def __init__(self, capacity: Mapping[str, float]) -> None:
        self._free = dict(capacity)
        self._capacity = dict(capacity)
        self._changed = threading.Condition()
        self._waiting: list[tuple[object, dict[str, float]]] = []

    def fits(self, need: Mapping[str, float]) -> bool:
        """Whether this need could be met if nobody else took anything."""
        return all(amount <= self._capacity.get(name, 0.0) + _ROUNDING for name, amount in need.items())

    def take(
        self,
        need: Mapping[str, float],
        *,
        stop: Callable[[], bool] = lambda: False,
        claim: Callable[[], bool] = lambda: True,
        on_wait: Callable[[frozenset[str]], None] = lambda _names: None,
    ) -> bool:
        """Wait until the need can be met and take it; False, with nothing taken, when `stop` says so.

        A need that does not fit at all is met alone: when nothing else is taken of what it wants (the check before the
        run refuses such stages; this one must not wait for ever where the machine shrank since). `claim` takes what is
        no number, devices for example: it is called last, by one thread at a time, and says whether it could. `on_wait`
        is told once what lacks, when the need cannot be met at first (empty: what `claim` takes).
        """
        wanted = {name: min(amount, self._capacity.get(name, 0.0)) for name, amount in need.items() if amount > 0}
        ticket = object()
        told = False
        with self._changed:
            self._waiting.append((ticket, wanted))
            try:
                while True:
                    if stop():
                        return False
                    lacking = self._lacking(ticket, wanted)
                    if not lacking and claim():
                        break
                    if not told:
                        told = True
                        on_wait(lacking)
                    self._changed.wait(LOOK_AT_STOP)
                for name, amount in wanted.items():
                    self._free[name] -= amount
                return True
            finally:
                self._waiting = [entry for entry in self._waiting if entry[0] is not ticket]
                self._changed.notify_all()

    def give_back(self, need: Mapping[str, float], *, release: Callable[[], None] = lambda: None) -> None:
        """Return what was taken for this need; `release` returns what `claim` took."""
        with self._changed:
            release()
            for name, amount in need.items():
                if amount > 0:
                    self._free[name] += min(amount, self._capacity.get(name, 0.0))
            self._changed.notify_all()

    def _lacking(self, ticket: object, wanted: Mapping[str, float]) -> frozenset[str]:
        """Return what is not free, or is for somebody who came earlier."""
        claimed: set[str] = set()
        for other, need in self._waiting:
            if other is ticket:
                break
            claimed |= need.keys()
        taken = {name for name, amount in wanted.items() if amount > self._free[name] + _ROUNDING}
        return frozenset(taken or claimed & wanted.keys())


class StageAdmission:
    """Lets stages begin within the limits of their pools and of this machine, and hands out its GPUs."""

    def __init__(self, graph: ResourceGraph, machine: Machine | None = None) -> None:
        self._graph = graph
        self._machine = machine or describe_machine()
        capacity: dict[str, float] = {
            "cpu": self._machine.cores,
            "memory": float(self._machine.memory),
            "gpu": float(len(self._machine.gpus)),
        }
        for pool in graph.spec.of(Pool).values():
            for name, amount in capacity_of(pool, self._machine).items():
                capacity[f"{pool.address}.{name}"] = amount
        self._slots = Slots(capacity)
        self._free_gpus = list(self._machine.gpus)
        self._given: dict[Address, tuple[dict[str, float], list[Gpu]]] = {}

    def admit(
        self, stage: Stage, *, stop: Callable[[], bool], on_wait: Callable[[str], None] = lambda _room: None
    ) -> Mapping[str, str] | None:
        """Wait for room and return the variables that go with it (`CUDA_VISIBLE_DEVICES`); None when told to stop.

        `on_wait` is told what lacks ("cpu of compute.local") once, when there is no room at first.
        """
        pool = self._graph.resources[stage.pool]
        assert isinstance(pool, Pool)  # noqa: S101 - the loader has resolved the reference
        own = need_of(stage, pool)
        need = own | {f"{pool.address}.{name}": amount for name, amount in own.items()}
        chosen: list[Gpu] = []
        is_admitted = self._slots.take(
            need,
            stop=stop,
            claim=lambda: self._claim_gpus(pool, int(own["gpu"]), chosen),
            on_wait=lambda names: on_wait(_room(names, pool.address)),
        )
        if not is_admitted:
            return None
        self._given[stage.address] = need, chosen
        if not own["gpu"]:
            return {}
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.identifier for gpu in chosen)}

    def leave(self, stage: Stage) -> None:
        """Give the share back."""
        need, gpus = self._given.pop(stage.address)
        self._slots.give_back(need, release=lambda: self._free_gpus.extend(gpus))

    def _claim_gpus(self, pool: Pool, count: int, chosen: list[Gpu]) -> bool:
        """Take GPUs that the pool may use. Called under the lock of the slots."""
        fitting = fitting_gpus(pool, self._machine)
        free = [gpu for gpu in fitting if gpu in self._free_gpus]
        if len(free) < min(count, len(fitting)):
            return False
        chosen.extend(free[:count])
        self._free_gpus = [gpu for gpu in self._free_gpus if gpu not in chosen]
        return True


def _room(lacking: frozenset[str], pool: Address) -> str:
    """Say what lacks: of the pool where its own limit is reached, else of the machine."""
    own = f"{pool}."
    of_pool = sorted(name.removeprefix(own) for name in lacking if name.startswith(own))
    if of_pool or not lacking:
        return f"{' and '.join(of_pool) or 'gpu'} of {pool}"
    return f"{' and '.join(sorted(lacking))} of this machine"
