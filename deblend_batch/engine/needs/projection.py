"""What a run will need, computed from what is known before it: memory, and time. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deblend_batch.engine.inputs.work import PART_BLENDS
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.errors import ConfigError

# Measured (docs/performance.md): resident memory of a worker with this package and torch loaded, which has
# measured a batch: 382 MB of libraries, the rest what they keep for themselves.
_ACTOR_BYTES = 525_000_000
_WITHOUT_RAY_BYTES = 395_000_000
_DRIVER_BYTES = 330_000_000  # which loads no torch: that would be 180 MB more
_DRIVER_WITHOUT_RAY_BYTES = 300_000_000
# Assumed, since no GPU was at hand: CUDA's libraries and context in the memory of the host.
_CUDA_BYTES = 1_500_000_000
# Measured: what reading takes beside what is held: chunks as stored, decoded, put together and padded. Not
# all tiles in flight are read at once.
_COPIES_WHILE_READING = 2.5
# Measured: stamps of the part of a tile that is being cut, on their way into a batch.
_COPIES_WHILE_CUTTING = 3
_BYTES_OF_TILE_IN_DRIVER = 600


@dataclass(frozen=True)
class TileNeeds:
    """What memory depends on, of the tiles of a run: the largest of each.

    Parameters
    ----------
    pixels : int
        Of core and halo.
    bands : int
        Bands of the field.
    variance, mask : bool
        Whether the field has these planes.
    pairs : int
        Of one unit of work.
    """

    pixels: int
    bands: int
    variance: bool
    mask: bool
    pairs: int

    @property
    def image_bytes(self) -> int:
        """Size of the image in all bands."""
        return 4 * self.bands * self.pixels

    @property
    def held_bytes(self) -> int:
        """What a tile keeps while its stamps are cut: the image with and without bad pixels, and the rest."""
        variance = self.image_bytes if self.variance else 0
        return 2 * self.image_bytes + variance + (6 * self.pixels if self.mask else 0)


@dataclass(frozen=True)
class ModelNeeds:
    """What memory depends on, of the model.

    Parameters
    ----------
    weight_bytes : int
        Of its parameters.
    activation_bytes : int
        Of one batch on its way through the network, on the device.
    stamp_size : int
        Edge of a stamp, px.
    batch_size : int
        Rows of a batch.
    """

    weight_bytes: int
    activation_bytes: int
    stamp_size: int
    batch_size: int

    @property
    def stamp_bytes(self) -> int:
        """Size of a stamp in one band."""
        return 4 * self.stamp_size**2


@dataclass(frozen=True)
class Memory:
    """Projected peak memory, bytes.

    Parameters
    ----------
    actor : int
        Of one actor.
    driver : int
        Of the driver.
    """

    actor: int
    driver: int


@dataclass(frozen=True)
class NodeSize:
    """What a node offers.

    Parameters
    ----------
    name : str
        For messages.
    cpus, gpus : float
        Cores and GPUs.
    memory : int
        Bytes for processes, besides the object store.
    """

    name: str
    cpus: float
    gpus: float
    memory: int

    def actors(self, pool: ActorPool) -> int:
        """Return how many actors of a pool may come to this node."""
        room = self.gpus / pool.gpus if pool.gpus else self.cpus / max(pool.cpus, 1.0)
        return min(pool.n_actors, int(room))

    def needed(self, memory: Memory, pool: ActorPool) -> int:
        """Return what the actors that may come to this node take."""
        return self.actors(pool) * memory.actor


@dataclass(frozen=True)
class Duration:
    """Projected time.

    Parameters
    ----------
    seconds : float
        Wall time, the start included.
    start_seconds : float
        Of it before the first tile.
    core_hours : float
        Of the cores that read, cut and, where there is no GPU, compute.
    gpu_hours : float
        Of the GPUs; 0 without.
    """

    seconds: float
    start_seconds: float
    core_hours: float
    gpu_hours: float

    def to_dict(self) -> dict[str, Any]:
        """Return the projection as JSON-able values."""
        return asdict(self)


def project_memory(
    tile: TileNeeds,
    model: ModelNeeds,
    pool: ActorPool,
    tiles_in_flight: int,
    n_tiles: int,
    *,
    masks: bool,
    on_ray: bool = True,
) -> Memory:
    """Project the peak memory of a run's processes."""
    part = min(tile.pairs, PART_BLENDS) * tile.bands * model.stamp_bytes
    each = tile.held_bytes + _COPIES_WHILE_CUTTING * part
    actor = _ACTOR_BYTES if on_ray else _WITHOUT_RAY_BYTES
    actor += 2 * model.weight_bytes + 3 * model.batch_size * model.stamp_bytes
    actor += _CUDA_BYTES if pool.gpus else model.activation_bytes
    actor += tiles_in_flight * each + int(_COPIES_WHILE_READING * tile.image_bytes)
    if masks:
        actor += tiles_in_flight * tile.pairs * 3 * model.stamp_size**2
    driver = _DRIVER_BYTES if on_ray else _DRIVER_WITHOUT_RAY_BYTES
    driver += n_tiles * _BYTES_OF_TILE_IN_DRIVER
    return Memory(actor, driver)


def project_time(
    n_pairs: int,
    n_stamps: int,
    pool: ActorPool,
    cores: float,
    stamps_per_second: float,
    cut_seconds_per_pair: float,
    start_seconds: float,
) -> Duration:
    """Project the wall time of a run, and what its tiles cost.

    Parameters
    ----------
    n_pairs, n_stamps : int
        What is left: pairs, and stamps of single bands.
    pool : ActorPool
        The actors.
    cores : float
        Of the cluster.
    stamps_per_second : float
        Of the model on the device of one actor.
    cut_seconds_per_pair : float
        CPU time of reading and cutting.
    start_seconds : float
        What passes before the first tile.
    """
    if not n_pairs:
        return Duration(0.0, 0.0, 0.0, 0.0)
    infer = n_stamps / stamps_per_second if n_stamps else 0.0
    cut = n_pairs * cut_seconds_per_pair
    if pool.gpus:
        seconds = max(infer, cut) / pool.n_actors
        gpu_hours = seconds * pool.n_actors * pool.gpus / 3600
        return Duration(start_seconds + seconds, start_seconds, cut / 3600, gpu_hours)
    seconds = (infer + cut) / min(cores, pool.n_actors)
    return Duration(start_seconds + seconds, start_seconds, (infer + cut) / 3600, 0.0)


def check_fits(memory: Memory, pool: ActorPool, nodes: Sequence[NodeSize]) -> None:
    """Refuse a run whose actors need more memory than their nodes have."""
    for node in nodes:
        needed = node.needed(memory, pool)
        if needed > node.memory:
            raise ConfigError(
                f"{node.actors(pool)} actors need {gigabytes(needed)} on {node.name}, which has "
                f"{gigabytes(node.memory)} ({gigabytes(memory.actor)} an actor); give a smaller "
                "tiles.size, engine.tiles_in_flight or engine.batch_size, or fewer engine.actors"
            )


def most_that_fit(
    project: Callable[[int], Memory],
    pool: ActorPool,
    nodes: Sequence[NodeSize],
    least: int,
    most: int,
) -> int:
    """Return how many tiles an actor may hold at a time for the memory of the nodes."""
    for tiles in range(most, least, -1):
        memory = project(tiles)
        if all(node.needed(memory, pool) <= node.memory for node in nodes):
            return tiles
    return least


def gigabytes(n_bytes: float) -> str:
    """Format a size.

    Examples
    --------
    >>> gigabytes(1_234_000_000)
    '1.23 GB'
    """
    return f"{n_bytes / 1e9:,.2f} GB"
