"""One call from data to an evaluation: the published table, a catalogue, or simulated pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from deblend_batch import storage
from deblend_batch.errors import ConfigError
from deblend_batch.evaluation.catalog import match_catalog
from deblend_batch.evaluation.evaluation import Evaluation
from deblend_batch.evaluation.members import Members, Recovered
from deblend_batch.evaluation.methods import (
    Method,
    available_baselines,
    baseline_methods,
    model_method,
)
from deblend_batch.evaluation.pairsets import run_methods
from deblend_batch.evaluation.paper import paper_numbers, read_paper_table
from deblend_batch.evaluation.scores import BOOTSTRAP_DRAWS, Score, score

if TYPE_CHECKING:
    from deblend_batch.simulate.batch import PairBatch

_BATCH = 256

_PAPER_NOTE = (
    "Per-pair results released with Boucaud et al. 2020, MNRAS 491, 2481. Scores and figures are over "
    "the members that SExtractor found, as in the paper; 'mean' is the mean of the magnitudes of both "
    "networks."
)
_UNDETECTED_NOTE = (
    "An undetected member counts as a failure, and as having lost all of its flux where 'undetected = "
    "100 %' is said."
)


def evaluate(
    *,
    paper_table: str | None = None,
    catalog: str | None = None,
    truth: str | None = None,
    band: str | None = None,
    match_arcsec: float | None = None,
    pairs: str | None = None,
    models: Sequence[str] = (),
    baselines: Sequence[str] | None = None,
    device: str | None = None,
    options: storage.Options | None = None,
) -> Evaluation:
    """Measure how well fluxes were recovered.

    Give one of ``paper_table``, ``catalog`` with ``truth``, or ``pairs``.

    Parameters
    ----------
    paper_table : str, optional
        URL of the per-pair table of Boucaud et al. 2020: the published numbers are recomputed.
    catalog : str, optional
        URL of a run's output folder, or of Parquet files with its columns.
    truth : str, optional
        URL of a Parquet table of true fluxes; see :func:`deblend_batch.evaluation.truth.read_truth`.
    band : str, optional
        Band of the catalogue; may be left out where there is one.
    match_arcsec : float, optional
        Match catalogue and truth by position within this distance instead of by id.
    pairs : str, optional
        URL of a data set of pairs written by ``deblend-batch simulate``.
    models : sequence of str
        Names or URLs of the models to run on ``pairs``.
    baselines : sequence of str, optional
        Baselines to run beside them, of :data:`deblend_batch.evaluation.methods.BASELINES`; all that
        can run here if not given.
    device : str, optional
        Torch device of the models; the CPU if None.
    options : mapping, optional
        fsspec storage options.

    Returns
    -------
    Evaluation
        Scores of every method, as numbers, text or a page.

    Raises
    ------
    ConfigError
        If not exactly one source is given, or an option does not belong to it.
    EvaluationError, NotFoundError, StorageError, ModelError
        If an input cannot be used.
    """
    _check_sources(paper_table, catalog, truth, pairs)
    _check_options(catalog, pairs, band, match_arcsec, models, baselines, device)
    if paper_table is not None:
        return evaluate_paper(paper_table, options)
    if catalog is not None and truth is not None:
        return evaluate_catalog(catalog, truth, band, match_arcsec, options)
    return _evaluate_pair_set(str(pairs), models, baselines, device or "cpu", options)


def _evaluate_pair_set(
    url: str,
    models: Sequence[str],
    baselines: Sequence[str] | None,
    device: str,
    options: storage.Options | None,
) -> Evaluation:
    # Here, so that the other modes need neither torch nor the simulator.
    from deblend_batch.models import load_model
    from deblend_batch.simulate.pairset import PairSet

    methods = [model_method(load_model(name, options, device)) for name in models]
    methods += baseline_methods(available_baselines() if baselines is None else baselines)
    data = PairSet(url, options)
    batches = (data.batch(start, start + _BATCH) for start in range(0, len(data), _BATCH))
    threshold = float(data.description["mask_threshold"])
    return evaluate_pairs(batches, methods, url, mask_threshold=threshold)


def _check_sources(
    paper_table: str | None,
    catalog: str | None,
    truth: str | None,
    pairs: str | None,
) -> None:
    given = [each for each in (paper_table, catalog, pairs) if each is not None]
    if len(given) != 1:
        raise ConfigError(
            "give exactly one of a paper table, a catalogue (with its truth) and a data set of pairs"
        )
    if (catalog is None) != (truth is None):
        raise ConfigError("a catalogue and a table of true fluxes belong together; give both")


def _check_options(
    catalog: str | None,
    pairs: str | None,
    band: str | None,
    match_arcsec: float | None,
    models: Sequence[str],
    baselines: Sequence[str] | None,
    device: str | None,
) -> None:
    if device is not None and not models:
        raise ConfigError(f"device {device!r} is for models; name one, or leave the device out")
    if pairs is None and (models or baselines is not None):
        raise ConfigError("models and baselines run on a data set of pairs; give its URL")
    if catalog is None and (band is not None or match_arcsec is not None):
        raise ConfigError("a band and a matching distance belong to a catalogue; give its URL")
    if match_arcsec is not None and not match_arcsec > 0:
        raise ConfigError(f"the matching distance {match_arcsec} arcsec must be positive")


def evaluate_paper(url: str, options: storage.Options | None = None) -> Evaluation:
    """Recompute the published comparison; scores are over the members that SExtractor found.

    Parameters
    ----------
    url : str
        URL of the released per-pair table.
    options : mapping, optional
        fsspec storage options.

    Returns
    -------
    Evaluation
        With the published numbers in ``paper``.

    Raises
    ------
    EvaluationError, NotFoundError, StorageError
        If the table cannot be used.
    """
    table = read_paper_table(url, options)
    members = table.members[table.found]
    recovered = [each[table.found] for each in table.recovered.values()]
    return Evaluation(
        mode="paper",
        title="The published table, recomputed",
        source=url,
        members=members,
        recovered=tuple(recovered),
        scores=_scores(members, recovered),
        notes=(_PAPER_NOTE,),
        paper=paper_numbers(table),
    )


def evaluate_catalog(
    catalog: str,
    truth: str,
    band: str | None = None,
    match_arcsec: float | None = None,
    options: storage.Options | None = None,
) -> Evaluation:
    """Compare the primary rows of a catalogue with true fluxes.

    Parameters
    ----------
    catalog, truth : str
        URLs of the output folder and of the table of true fluxes.
    band : str, optional
        Band; may be left out where the catalogue has one.
    match_arcsec : float, optional
        Match by position within this distance instead of by id.
    options : mapping, optional
        fsspec storage options.

    Returns
    -------
    Evaluation
        One method: the catalogue.

    Raises
    ------
    EvaluationError, NotFoundError, StorageError
        If an input cannot be used.
    """
    matched = match_catalog(catalog, truth, band=band, match_arcsec=match_arcsec, options=options)
    note = (
        f"Primary rows with a true source: {len(matched.members)}; primary rows without one, not "
        f"judged: {matched.n_without_truth}. The truth has {matched.n_truth} sources; those that are "
        "in no pair have no row."
    )
    return Evaluation(
        mode="catalog",
        title=f"Catalogue against truth, {matched.band}",
        source=f"{catalog} against {truth}",
        members=matched.members,
        recovered=(matched.recovered,),
        scores=_scores(matched.members, [matched.recovered]),
        notes=(note,),
    )


def evaluate_pairs(
    batches: Iterable[PairBatch],
    methods: Sequence[Method],
    source: str,
    mask_threshold: float = 1.5,
) -> Evaluation:
    """Compare methods on the same pairs.

    Parameters
    ----------
    batches : iterable of PairBatch
        The pairs.
    methods : sequence of Method
        Models and baselines; examples show the best one that draws masks, else the first.
    source : str
        What the pairs are, for the page.
    mask_threshold : float
        Isophote of the true masks, in units of the background rms.

    Returns
    -------
    Evaluation
        One score per method.

    Raises
    ------
    ConfigError
        If there are no methods.
    EvaluationError
        If there are no pairs, or a method cannot take them.
    """
    if not methods:
        raise ConfigError("nothing to evaluate; give a model or a baseline")
    outcome = run_methods(batches, methods, mask_threshold)
    limits = tuple(method.name for method in methods if method.is_limit)
    limit_note = f"{', '.join(limits)}: told the true images; a bound, not a method."
    return Evaluation(
        mode="pairs",
        title="Methods side by side on simulated pairs",
        source=f"{len(outcome.members) // 2} pairs of {source}",
        members=outcome.members,
        recovered=outcome.recovered,
        scores=_scores(outcome.members, outcome.recovered),
        notes=(_UNDETECTED_NOTE, limit_note) if limits else (_UNDETECTED_NOTE,),
        examples=outcome.examples,
        limits=limits,
    )


def _scores(members: Members, recovered: Sequence[Recovered]) -> tuple[Score, ...]:
    return tuple(score(members, each, BOOTSTRAP_DRAWS) for each in recovered)
