from dataclasses import fields

from brainsegnet.cli.flags import (
    BudgetFlags,
    CaseFlags,
    HoldOutFlags,
    MachineFlags,
    OriginFlags,
    SegmentFlags,
    SequenceFlags,
    SimulationFlags,
)
from brainsegnet.inference.options import SegmentOptions
from brainsegnet.task import TASKS
from brainsegnet.training.options import TrainOptions
from brainsegnet.training.recipes import Budget


def defaults(kind):
    return {field.name: field.default for field in fields(kind)}


def test_every_option_has_a_flag_of_its_name_and_default():
    assert defaults(SegmentFlags) == defaults(SegmentOptions)
    assert defaults(BudgetFlags) == defaults(Budget)
    of_the_verb = {"recipe": None, "budget": None, "seed": 0, "resume": False}
    groups = (CaseFlags, SimulationFlags, HoldOutFlags, MachineFlags, OriginFlags)
    assert {k: v for g in groups for k, v in defaults(g).items()} | of_the_verb == defaults(TrainOptions)


def test_every_sequence_of_every_task_of_ours_has_a_flag():
    known = {sequence for task in TASKS.values() for sequence in task.sequences}
    assert known == set(defaults(SequenceFlags))
