"""News of a training, and their way from the first of several replicas to the user's terminal."""

from __future__ import annotations

from dataclasses import dataclass

from deblend_batch.errors import UserError


@dataclass(frozen=True)
class Report:
    """News of a training, after each validation.

    Parameters
    ----------
    step, steps : int
        Steps made, and to make at most.
    loss : float
        Mean training loss since the last validation.
    pairs_per_s : float
        Pairs trained on per second since then, by all replicas.
    validation : dict of str to float
        Metrics on unseen galaxies.
    """

    step: int
    steps: int
    loss: float
    pairs_per_s: float
    validation: dict[str, float]

    def __str__(self) -> str:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in self.validation.items())
        return (
            f"step {self.step}/{self.steps}  loss {self.loss:.4f}  "
            f"{self.pairs_per_s:,.0f} pairs/s  {metrics}"
        )


class News:
    """An actor between the first replica, which tells, and the driver, which asks."""

    def __init__(self) -> None:
        self._reports: list[Report] = []
        self._mistake: UserError | None = None

    def tell(self, report: Report) -> None:
        """Keep a report until it is taken."""
        self._reports.append(report)

    def stop(self, mistake: UserError) -> None:
        """Say that no restart will help."""
        self._mistake = mistake

    def take(self) -> tuple[list[Report], UserError | None]:
        """Return what is new."""
        reports, self._reports = self._reports, []
        return reports, self._mistake
