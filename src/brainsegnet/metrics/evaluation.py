"""`Evaluation`: the scores of predictions against truths, and which of them the headline is of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from brainsegnet.metrics.scores import USUAL_RULES, CaseScores, ScoreRules
from brainsegnet.metrics.unseen import Familiarity
from brainsegnet.task import Task


@dataclass(frozen=True)
class Evaluation:
    """Scores of predictions by case and region, in the label convention of a task.

    Attributes:
        task: Task whose regions are scored.
        scores: Case name to region to score.
        failures: Name of each case that could not be scored, to a sentence that says why.
        rules: Rules of the scores.
        unpredicted: True cases that have no prediction. They are in no mean.
        familiarity: Which cases the model was trained on.
    """

    task: Task
    scores: CaseScores
    failures: Mapping[str, str] = field(default_factory=dict)
    rules: ScoreRules = USUAL_RULES
    unpredicted: Sequence[str] = ()
    familiarity: Familiarity = field(default_factory=Familiarity)

    @property
    def headline(self) -> CaseScores:
        """The scores of the unseen cases; of all cases, if the model was trained on all of them."""
        seen = self.familiarity.seen
        return {name: scores for name, scores in self.scores.items() if name not in seen} or self.scores

    @property
    def is_mixed(self) -> bool:
        """Whether the model was trained on some of the cases, but not on all."""
        return len(self.headline) < len(self.scores)

    @property
    def kind(self) -> str:
        """What the cases of the headline are called: `unseen case`, `training case` or `case`."""
        seen = self.familiarity.seen
        return "unseen case" if self.is_mixed else "training case" if seen else "case"
