"""The model actor: one process, one device, one model; several tiles at a time in its threads."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numcodecs.blosc
import numpy as np
import pyarrow as pa
import ray
import zarr
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.catalog.ledger import Ledger, Receipt, now
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.shard import Measurement, encode, make_rows
from deblend_batch.engine.batcher import Batcher, PredictionLike, Rows
from deblend_batch.engine.measure import Part, domain_flags, measurement, reduce
from deblend_batch.engine.work import RunContext, TileSpec, cut_parts, load_pairs, open_field
from deblend_batch.field.layout import Field
from deblend_batch.models import load_model
from deblend_batch.tiling.pairs import Pairs
from deblend_batch.tiling.stamps import Stamps

ModelLoader = Callable[[RunContext, str], Any]


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker runs, for receipts.

    Parameters
    ----------
    node : str
        Ray node id.
    pid : int
        Process.
    device : str
        torch device.
    gpu_ids : tuple of int
        GPUs that Ray gave it.
    cuda_visible_devices : str, optional
        What CUDA may see.
    torch_threads : int
        Threads of one operation.
    """

    node: str
    pid: int
    device: str
    gpu_ids: tuple[int, ...]
    cuda_visible_devices: str | None
    torch_threads: int


def load_run_model(context: RunContext, device: str) -> Any:
    """Load the run's model on a device."""
    return load_model(context.model, context.options, device=device)


def limit_threads(threads: int) -> None:
    """Hold every library of this process to its share of the node's cores.

    Parameters
    ----------
    threads : int
        Threads that one operation may use.
    """
    import torch

    torch.set_num_threads(threads)
    numcodecs.blosc.set_nthreads(1)
    zarr.config.set({"threading.max_workers": 2})
    pa.set_cpu_count(1)


def choose_device(gpu_ids: list[int]) -> str:
    """Choose the torch device of an actor.

    Parameters
    ----------
    gpu_ids : list of int
        GPUs that Ray gave the actor; Ray has set ``CUDA_VISIBLE_DEVICES`` to them, so that the first visible
        one is its own.

    Returns
    -------
    str
        ``"cuda:0"``, or ``"cpu"`` where there is no GPU or torch cannot use it.
    """
    import torch

    return "cuda:0" if gpu_ids and torch.cuda.is_available() else "cpu"


class ModelActor:
    """Measures tiles; made with ``ray.remote``, one per GPU, or per core where there is none.

    Parameters
    ----------
    context : RunContext
        The run.
    threads : int
        Cores that are its share.
    loader : callable
        Makes the model; benchmarks give a stub here.
    """

    def __init__(
        self, context: RunContext, threads: int = 1, loader: ModelLoader = load_run_model
    ) -> None:
        gpu_ids = [int(gpu) for gpu in ray.get_gpu_ids()]
        limit_threads(threads)
        device = choose_device(gpu_ids)
        self._context = context
        self._model = loader(context, device)
        batch = context.batch_size or int(self._model.default_batch_size)
        self._batcher = Batcher(self._model, batch)
        self._ledger = Ledger(context.output, context.options)
        self._masks = MaskStore(context.output, context.options)
        self._info = WorkerInfo(
            ray.get_runtime_context().get_node_id(),
            os.getpid(),
            device,
            tuple(gpu_ids),
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            threads,
        )

    def ready(self) -> WorkerInfo:
        """Return where the actor runs; resolves when it can take tiles."""
        return self._info

    def process(self, spec: TileSpec, *parts: Stamps) -> Receipt:
        """Measure a tile and commit its shard.

        Parameters
        ----------
        spec : TileSpec
            The tile.
        *parts : Stamps
            Its stamps, where CPU tasks have cut them; else the actor cuts its own.

        Returns
        -------
        Receipt
            What stands in the ledger.

        Raises
        ------
        BadDataError
            If its pixels cannot be decoded.
        StorageError
            If a store refuses.
        """
        started = time.monotonic()
        opened = open_field(spec.field_url, self._context)
        pairs = load_pairs(spec, self._context)
        answers, bits, sigma = _Answers(opened.n_bands, keep_masks=self._context.masks), [], []
        with self._batcher.producing():
            for stamps in parts or cut_parts(spec, pairs, self._context):
                answers.expect(self._batcher.submit(Rows.of_bands(stamps)))
                bits.append(stamps.flags)
                sigma.append(stamps.sigma)
        cut = time.monotonic()
        measured = measurement(np.concatenate(bits), answers.wait())
        inferred = time.monotonic()
        extra = self._domain(pairs, measured, np.concatenate(sigma), opened)
        measured = replace(measured, flags=measured.flags | extra)
        rows = make_rows(spec.name, pairs, measured, opened.meta.bands, opened.meta.zero_point)
        shard = encode(rows)
        seconds = {"cut": round(cut - started, 4), "infer": round(inferred - cut, 4)}
        receipt = self._receipt(spec, rows, shard, seconds)
        if self._context.masks:
            self._masks.write(spec.name, pairs.blend_id, answers.masks())
        self._ledger.commit(shard, receipt)
        return receipt

    def _domain(
        self, pairs: Pairs, measured: Measurement, sigma: NDArray[np.float32], opened: Field
    ) -> NDArray[np.int32]:
        separation_px = np.linalg.norm(pairs.yx[:, 0] - pairs.yx[:, 1], axis=1)
        fwhm_px = [fwhm / opened.pixel_scale_arcsec for fwhm in opened.meta.psf_fwhm_arcsec]
        return domain_flags(measured, separation_px, sigma, fwhm_px, self._model.card.domain)

    def _receipt(
        self, spec: TileSpec, rows: pa.Table, shard: bytes, seconds: dict[str, float]
    ) -> Receipt:
        return Receipt(
            tile=spec.name,
            pairs=spec.n_pairs,
            rows=len(rows),
            bytes=len(shard),
            sha256=hashlib.sha256(shard).hexdigest(),
            fingerprint=self._context.fingerprint,
            model_sha256=self._context.model_sha256,
            flags=flags.count(rows["flags"].to_numpy()),
            seconds=seconds,
            worker=vars(self._info).copy(),
            written_at=now(),
        )


class _Answers:
    """The model's answers to a tile, reduced as they come: masks in full would need gigabytes."""

    def __init__(self, n_bands: int, *, keep_masks: bool) -> None:
        self._n_bands = n_bands
        self._keep_masks = keep_masks
        self._open: deque[Future[list[PredictionLike]]] = deque()
        self._parts: list[Part] = []

    def expect(self, answer: Future[list[PredictionLike]]) -> None:
        self._open.append(answer)
        while self._open and self._open[0].done():
            self._take()

    def wait(self) -> list[Part]:
        while self._open:
            self._take()
        return self._parts

    def masks(self) -> NDArray[np.uint8]:
        return np.concatenate([part.masks for part in self._parts if part.masks is not None])

    def _take(self) -> None:
        predictions = self._open.popleft().result()
        self._parts.append(reduce(predictions, self._n_bands, keep_masks=self._keep_masks))


def cut_tile(spec: TileSpec, context: RunContext) -> Iterator[Stamps]:
    """Cut a tile's stamps in a CPU task, one object a part; never touches CUDA.

    Parameters
    ----------
    spec : TileSpec
        The tile.
    context : RunContext
        The run.

    Yields
    ------
    Stamps
        The next part.
    """
    numcodecs.blosc.set_nthreads(1)
    zarr.config.set({"threading.max_workers": 2})
    yield from cut_parts(spec, load_pairs(spec, context), context)
