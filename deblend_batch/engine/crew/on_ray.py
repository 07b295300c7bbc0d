"""Workers that are actors of a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray

from deblend_batch.cluster.connection import connected, draining_nodes
from deblend_batch.cluster.failure import fault_of
from deblend_batch.cluster.metrics import publish_often
from deblend_batch.cluster.workers import Workers
from deblend_batch.engine.crew.crew import Answer, Call
from deblend_batch.engine.crew.environment import ENVIRONMENT
from deblend_batch.engine.crew.place import Place
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.needs.projection import NodeSize
from deblend_batch.engine.worker.actor import ModelActor
from deblend_batch.engine.worker.exchange import ModelLoader, Seat
from deblend_batch.engine.worker.metrics import ActorMetrics

_ANSWER_SECONDS = 5.0
_INDEXED_AT_ONCE = 4


class RayActor(ModelActor):
    """A worker as a Ray actor, which tells its metrics."""

    def __init__(self, context: RunContext, share: float, loader: ModelLoader) -> None:
        gpu_ids = tuple(int(gpu) for gpu in ray.get_gpu_ids())
        seat = Seat(ray.get_runtime_context().get_node_id(), gpu_ids, 1, share)
        super().__init__(context, seat, loader)
        publish_often(ActorMetrics(context.run, self.batcher).publish)


class RayCrew:
    """A crew of Ray actors, of which Ray restarts none; see :class:`~deblend_batch.engine.crew.crew.Crew`.

    Parameters
    ----------
    context : RunContext
        The run.
    pool : ActorPool
        What each actor asks of the cluster.
    tiles_at_once : int
        Most tiles that one is given at a time.
    loader : callable
        Makes the model in each.
    """

    def __init__(
        self, context: RunContext, pool: ActorPool, tiles_at_once: int, loader: ModelLoader
    ) -> None:
        options = ray.remote(RayActor).options(
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=tiles_at_once + 1,
            runtime_env={"env_vars": ENVIRONMENT},
        )
        self._make = partial(options.remote, context, pool.gpus, loader)
        self._actors: set[Any] = set()
        self._open: dict[Any, Call] = {}

    def start(self) -> Call:
        """Make an actor, as soon as the cluster has room."""
        actor = self._make()
        self._actors.add(actor)
        return self.submit(actor, "ready")

    def submit(self, worker: Any, method: str, *arguments: Any) -> Call:
        """Call a method of an actor."""
        call = Call(worker, method)
        self._open[getattr(worker, method).remote(*arguments)] = call
        return call

    def wait(self, seconds: float) -> list[Answer]:
        """Return the answers that have come."""
        if not self._open:
            time.sleep(seconds)
            return []
        done, _ = ray.wait(list(self._open), num_returns=1, timeout=seconds, fetch_local=False)
        return [self._answer(ref) for ref in done]

    def _answer(self, ref: Any) -> Answer:
        call = self._open.pop(ref)
        try:
            return Answer(call, ray.get(ref))
        except Exception as error:  # noqa: BLE001  # classed at once
            return Answer(call, fault=fault_of(error))

    def lives(self, worker: Any) -> bool:
        """Ask an actor whether it is still there."""
        try:
            ray.get(worker.ready.remote(), timeout=_ANSWER_SECONDS)
        except Exception:  # noqa: BLE001  # whatever it is, the actor does not answer
            return False
        return True

    def kill(self, worker: Any) -> None:
        """Kill an actor."""
        self._actors.discard(worker)
        ray.kill(worker)

    def close(self) -> None:
        """Kill the actors that are left."""
        for worker in list(self._actors):
            self.kill(worker)
        self._open.clear()

    def resources(self) -> Mapping[str, float]:
        """Return what the cluster has."""
        return dict(ray.cluster_resources())

    def leaving(self) -> frozenset[str]:
        """Return the nodes of which the cluster says that they will be taken away."""
        return draining_nodes()

    def why_waiting(self) -> Mapping[str, str]:
        """Return what the cluster has left."""
        free, all_there_is = ray.available_resources(), ray.cluster_resources()
        has = (
            f"{free.get(kind, 0):g} of {all_there_is.get(kind, 0):g} {kind}"
            for kind in ("CPU", "GPU")
        )
        return {
            "free": ", ".join(has),
            "mend": "end what holds them, or ask for fewer or smaller actors "
            "(engine.actors, gpus_per_actor)",
        }


@contextmanager
def ray_place() -> Iterator[Place]:
    """Join the cluster that ``RAY_ADDRESS`` names, else raise one on this machine."""
    with connected() as resources:
        # Tasks of the preparation take no core from the actors that start meanwhile.
        workers = Workers(_INDEXED_AT_ONCE, cpus=0.0)
        yield Place(resources, cluster_nodes(), workers, RayCrew, on_ray=True)


def cluster_nodes() -> list[NodeSize]:
    """Return the nodes of the Ray cluster that this process has joined."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [
        NodeSize(
            f"node {node['NodeManagerAddress']}",
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            int(node["Resources"].get("memory", 0)),
        )
        for node in nodes
    ]
