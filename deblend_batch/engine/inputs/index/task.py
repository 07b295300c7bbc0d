"""What is needed to index one field, anywhere on the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deblend_batch.catalog.output import Output
from deblend_batch.config import PairsConfig, RunConfig
from deblend_batch.engine.inputs.survey import SurveyEntry
from deblend_batch.field.layout import Field
from deblend_batch.models.card import ModelCard
from deblend_batch.storage import Options
from deblend_batch.tiling.grouping import BlendRules


@dataclass(frozen=True)
class IndexTask:
    """All that is needed to index one field, anywhere on the cluster."""

    entry: SurveyEntry
    output: Output
    tile_size: int
    max_blends: int
    stamp_size: int
    pairs: PairsConfig
    rules: BlendRules | None = None
    """What a blend is; None for a model that takes pairs."""
    keep_unused: bool = True
    """Whether the detections that cannot be used are listed in a file beside the index."""
    meant: tuple[str, ...] = ()
    """Comparisons of the detections with the pixels that must not stop the run."""
    match_arcsec: float = 0.5
    """How near sources of two tables are that are one."""

    @property
    def url(self) -> str:
        """URL of the index."""
        return self.output.index_url(self.entry.index_name())

    @property
    def measures_all(self) -> bool:
        """Whether every source in the image that belongs to the field is measured, and once."""
        return self.rules is not None and self.pairs.table is None and self.rules.sources == "all"

    def reach_px(self, field: Field) -> float:
        """Return how far from an image a source may lie and still be of use in it, px.

        Beside other fields as far as to tell, of a source in a pair, all its pairs, and whose each is.
        """
        apart = self.pairs.max_separation if self.rules is None else self.rules.link_arcsec
        if self.entry.neighbours:
            apart = 2 * (apart + self.match_arcsec)
        return max(apart / field.pixel_scale_arcsec, self.stamp_size / 2) + 1

    @property
    def options(self) -> Options:
        """Storage options of the inputs, which are those of the output."""
        return self.output.options


def index_tasks(
    config: RunConfig, output: Output, entries: Sequence[SurveyEntry], card: ModelCard
) -> list[IndexTask]:
    """Describe the indexing of each field of a run.

    Parameters
    ----------
    config : RunConfig
        The config.
    output : Output
        Where the indexes are to be.
    entries : sequence of SurveyEntry
        The fields.
    card : ModelCard
        Of the model.
    """
    link = config.blends.link or config.pairs.max_separation
    rules = BlendRules(link, config.blends.max_members, config.sources)
    return [
        IndexTask(
            entry,
            output,
            config.tiles.size,
            config.tiles.max_pairs,
            card.stamp_size,
            config.pairs,
            None if card.takes_pairs else rules,
            meant=tuple(config.meant),
            match_arcsec=config.overlaps.match,
        )
        for entry in entries
    ]
