"""The place of a run, opened: a Ray cluster is joined or raised, or processes of this machine are readied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deblend_batch.engine.crew.local import local_place
from deblend_batch.engine.crew.place import Place
from deblend_batch.engine.crew.where import Where


@contextmanager
def open_place(where: Where) -> Iterator[Place]:
    """Raise or join what a run's workers live on; what is raised here ends with the context."""
    if where == "ray":
        # Only here, since the import alone takes a second.
        from deblend_batch.engine.crew.on_ray import ray_place

        with ray_place() as place:
            yield place
    else:
        yield local_place()
