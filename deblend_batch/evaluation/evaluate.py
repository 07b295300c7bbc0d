"""One call from data to an evaluation: the published table, a catalogue, or simulated pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deblend_batch import storage
from deblend_batch.errors import ConfigError
from deblend_batch.evaluation.catalog import Matched, match_catalog
from deblend_batch.evaluation.evaluation import Evaluation
from deblend_batch.evaluation.members import Members, Recovered
from deblend_batch.evaluation.methods.method import (
    Method,
    available_baselines,
    baseline_methods,
    fit_method,
    model_method,
)
from deblend_batch.evaluation.pairsets import PairOutcome, View, run_methods
from deblend_batch.evaluation.paper import paper_numbers, read_paper_table
from deblend_batch.evaluation.scores import BOOTSTRAP_DRAWS, Score, score
from deblend_batch.evaluation.tables import percent
from deblend_batch.progress import Progress, silent

if TYPE_CHECKING:
    from deblend_batch.simulate.pairs.batch import PairBatch
    from deblend_batch.simulate.pairs.pairset import PairSet

_BATCH = 256

_PAPER_NOTE = (
    "Per-pair results released with Boucaud et al. 2020, MNRAS 491, 2481. Scores and figures are over "
    "the members that SExtractor found, as in the paper. Over all pairs, a member that it did not find "
    "counts as undetected: no part of bias, sigma, outliers and MAPE, but a failure."
)
_UNDETECTED_NOTE = (
    "Undetected is a member to which a method gives no flux. It is no part of bias, sigma, outliers and "
    "MAPE, but counts as a failure, and in 'MAPE of all' as wrong by 100 %."
)
_PAPER_METHODS = {
    "blend2flux": "released fluxes, zero point 25.96",
    "blend2mask2flux": "released fluxes, zero point 25.96",
    "mean": "mean of the magnitudes of the two networks, which is not in the paper",
    "SExtractor": "released fluxes, zero point 25.67; detects by itself in a cold and a hot pass",
}


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
    progress: Progress = silent,
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
        Baselines to run beside them, of :data:`deblend_batch.evaluation.methods.method.BASELINES`; all that
        can run here if not given.
    device : str, optional
        Torch device of the models; the CPU if None.
    options : mapping, optional
        fsspec storage options.
    progress : callable
        Told of the pairs of ``pairs`` that were measured.

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
    return _evaluate_pair_set(str(pairs), models, baselines, device or "cpu", options, progress)


def _evaluate_pair_set(
    url: str,
    models: Sequence[str],
    baselines: Sequence[str] | None,
    device: str,
    options: storage.Options | None,
    progress: Progress,
) -> Evaluation:
    # Here, so that the other modes need neither torch nor the simulator.
    from deblend_batch.models import load_model
    from deblend_batch.models.model import Model
    from deblend_batch.simulate.pairs.pairset import PairSet

    data = PairSet(url, options)
    scale, zero_point = (
        float(data.description[name]) for name in ("pixel_scale_arcsec", "zero_point")
    )
    methods = []
    for name in models:
        model = load_model(name, options, device)
        if isinstance(model, Model):
            methods.append(model_method(model))
        else:
            methods.append(fit_method(model, scale, zero_point))
    methods += baseline_methods(available_baselines() if baselines is None else baselines)
    batches = _told_batches(data, progress)
    threshold = float(data.description["mask_threshold"])
    return evaluate_pairs(batches, methods, url, threshold, _facts(url, data.description))


def _told_batches(data: PairSet, progress: Progress) -> Iterator[PairBatch]:
    """Read pairs batch by batch; who asks for the next has measured the one before."""
    for start in range(0, len(data), _BATCH):
        progress("measuring", start, len(data))
        yield data.batch(start, start + _BATCH)
    progress("measuring", len(data), len(data))


def _facts(url: str, description: Mapping[str, Any]) -> dict[str, str]:
    """Say how a data set of pairs was made."""
    rules = description["rules"]
    facts = {
        name: description[name] for name in ("preset", "split", "seed", "zero_point", "source")
    }
    return {
        "data set": url,
        "pairs": f"{description['n_pairs']:,}",
        "stamps": f"{rules['stamp_size']} px of {description['pixel_scale_arcsec']:g} arcsec",
        "true masks": f"each member alone above {description['mask_threshold']:g} sigma of the noise",
        **{name.replace("_", " "): f"{value}" for name, value in facts.items()},
        "rules": ", ".join(f"{name} {_plain(value)}" for name, value in rules.items()),
    }


def _plain(value: Any) -> str:
    return " to ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


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
        methods=_PAPER_METHODS,
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
        f"Primary rows with a true source: {len(matched.members):,}; primary rows without one, not "
        f"judged: {matched.n_without_truth:,}. The truth has {matched.n_truth:,} sources; those that are "
        "in no pair have no row."
    )
    notes = [note, *_missed_note(matched), _UNDETECTED_NOTE]
    return Evaluation(
        mode="catalog",
        title=f"Catalogue against truth, {matched.band}",
        source=f"{catalog} against {truth}",
        members=matched.members,
        recovered=(matched.recovered,),
        scores=_scores(matched.members, [matched.recovered]),
        notes=tuple(notes),
        data={"catalogue": catalog, "truth": truth, "band": matched.band},
        methods={matched.recovered.method: "primary rows of the catalogue"},
        counts={
            "without truth": matched.n_without_truth,
            **({} if matched.n_missed is None else {"missed": matched.n_missed}),
        },
    )


def _missed_note(matched: Matched) -> list[str]:
    """Say how many blended sources the catalogue does not have: a detector's misses among them."""
    if matched.n_missed is None:
        return []
    note = (
        f"True sources with another one within {matched.reach_arcsec:.2f} arcsec (the widest pair of the "
        f"catalogue) but without a row: {matched.n_missed:,}. They were not detected, not processed or "
        "left out of the pairs, and are in none of the numbers below."
    )
    return [note]


def evaluate_pairs(
    batches: Iterable[PairBatch],
    methods: Sequence[Method],
    source: str,
    mask_threshold: float = 1.5,
    data: Mapping[str, str] | None = None,
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
    data : mapping of str to str, optional
        What the pairs are, fact by fact, for the page.

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
    notes = [_UNDETECTED_NOTE, *_view_notes(outcome, methods)]
    if limits:
        notes.append(f"{', '.join(limits)}: told the true images; a bound, not a method.")
    return Evaluation(
        mode="pairs",
        title="Methods side by side on simulated pairs",
        source=f"{len(outcome.members) // 2:,} pairs of {source}",
        members=outcome.members,
        recovered=outcome.recovered,
        scores=_scores(outcome.members, outcome.recovered),
        notes=tuple(notes),
        examples=outcome.examples,
        limits=limits,
        data=data or {},
        methods={method.name: method.about for method in methods},
    )


def _view_notes(outcome: PairOutcome, methods: Sequence[Method]) -> list[str]:
    """Say which methods see less than the whole stamps, and which members they cannot see."""
    names: dict[View, list[str]] = {}
    for method, view in zip(methods, outcome.views, strict=True):
        if view.stamp_px < outcome.stamp_px:
            names.setdefault(view, []).append(method.name)
    n = len(outcome.members)
    return [
        f"Seeing only the central {view.stamp_px} of {outcome.stamp_px} px: {', '.join(those)}. "
        f"{view.n_outside:,} of the {n:,} members ({percent(view.n_outside / n)}) lie outside of that: "
        "undetected because of the size of the stamp, whatever their brightness."
        for view, those in names.items()
    ]


def _scores(members: Members, recovered: Sequence[Recovered]) -> tuple[Score, ...]:
    return tuple(score(members, each, BOOTSTRAP_DRAWS) for each in recovered)
