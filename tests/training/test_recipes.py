import math
from collections import Counter
from typing import get_args

import pytest
from pydantic import ValidationError

from brainsegnet.errors import TaskError
from brainsegnet.training import RecipeName
from brainsegnet.training.recipes import MODERN, PAPER, RECIPES, Budget, Recipe, Stage, load_recipe


def recipe(**kwargs):
    return Recipe(**{"name": "r", "budget_epochs": 1, **kwargs})


def stages(*shares):
    return tuple(Stage(name=str(i), share=s, augment=0, gamma=0) for i, s in enumerate(shares))


def test_the_paper_recipe_is_the_paper():
    """Rows 1, 4 and 6 to 9 of the paper's description."""
    assert (PAPER.widths, PAPER.refined) == ((32, 64, 128, 256), 128)
    assert (PAPER.sampling, PAPER.patch, PAPER.batch) == ("slabs", None, 40)
    assert (PAPER.optimiser, PAPER.learning_rate, PAPER.weight_decay) == ("adam", 1e-4, 0)
    assert [PAPER.rate_at(p) for p in (0, 0.3, 1)] == [1e-4] * 3
    assert PAPER.budget() == Budget(epochs=1500)
    assert [(s.share, s.augment, s.gamma) for s in PAPER.stages] == [(1, 0, 0), (1, 0.5, 0), (1, 0.75, 2)]
    change = PAPER.augmentation
    assert (change.slice_gain, change.scale, change.quarter_turns) == ((0.8, 1.2), (0.5, 1.2), True)
    assert change.flips == (0, 0.5, 0.5)
    assert (change.angle_deg, change.noise, change.blur) == (0, 0, 0)
    assert (change.gain, change.shift, change.gamma) == ((1, 1), (0, 0), (1, 1))
    assert (PAPER.dice, PAPER.averaging, PAPER.drop_sequences) == (0, 0, 0)


def test_the_stages_of_the_paper_have_500_epochs_each():
    places, batch = 20 * 13, PAPER.batch
    budget = PAPER.budget()
    epochs = Counter(PAPER.stage_at(budget.progress(e * 13 // 2, 0, places / batch)).name for e in range(1500))
    assert epochs == {"original": 500, "augmented": 500, "focal": 500}


@pytest.mark.parametrize("shares, counts", [((1, 1, 1), (40, 40, 40)), ((1, 2, 3), (20, 40, 60)), ((5, 1), (100, 20))])
def test_stages_keep_their_shares_of_any_budget(shares, counts):
    """120 steps, 12 epochs of 10 steps, or 2 minutes of one-second steps."""
    r = recipe(stages=stages(*shares))
    for budget in (Budget(steps=120), Budget(epochs=12), Budget(minutes=2)):
        seen = Counter(r.stages.index(r.stage_at(budget.progress(s, s / 60, 10))) for s in range(120))
        assert tuple(seen[i] for i in range(len(shares))) == counts, budget


def test_a_budget_is_spent_when_its_last_step_is_done():
    assert Budget(steps=7).progress(7, 0, 1) == 1 > Budget(steps=7).progress(6, 1e9, 1)
    assert Budget(epochs=2).progress(5, 0, 2.5) == 1 > Budget(epochs=2).progress(4, 1e9, 2.5)
    assert Budget(minutes=2).progress(0, 2, 1) == 1 > Budget(minutes=2).progress(10**9, 1.99, 1)
    assert Budget(steps=7).progress(9, 0, 1) == 1 and Budget(minutes=1).progress(0, 9, 1) == 1


def test_a_part_of_an_epoch_is_at_least_a_step():
    assert Budget(epochs=0.01).progress(0, 0, 3) == 0 and Budget(epochs=0.01).progress(1, 0, 3) == 1


@pytest.mark.parametrize(
    "given",
    [{}, {"steps": 1, "epochs": 2}, {"steps": 1, "epochs": 2, "minutes": 3}, {"steps": 0}, {"minutes": -1.0},
     {"epochs": math.nan}, {"minutes": math.inf}],
)  # fmt: skip
def test_a_budget_is_one_positive_number(given):
    with pytest.raises(TaskError, match="a budget is") as caught:
        Budget(**given)
    assert "\n" not in str(caught.value)


def test_the_rate_rises_over_the_warm_up_and_falls_along_a_half_cosine():
    r = recipe(learning_rate=1.0, warmup=0.2, decay=True)
    rates = [r.rate_at(p / 100) for p in range(101)]
    assert rates == sorted(rates[:21]) + sorted(rates[21:], reverse=True)
    assert 0 < rates[0] <= 0.01 and rates[20] == max(rates) == 1.0
    assert rates[10] == pytest.approx(0.5) and rates[60] == pytest.approx(0.5) and 0 < rates[100] <= 1e-3


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_recipe_fits_the_number_of_cases_once_and_few_cases_get_a_narrower_network(recipe):
    few, many = recipe.fit_to(1), recipe.fit_to(100)
    assert many == recipe.model_copy(update={"narrow_below": 0})
    assert few.fit_to(1) == few and many.fit_to(1) == many
    if recipe.narrow_below:
        assert recipe.fit_to(recipe.narrow_below) == many and recipe.fit_to(recipe.narrow_below - 1) == few
        assert tuple(2 * width for width in (*few.widths, few.refined)) == (*many.widths, many.refined)
        assert few.learning_rate == 2 * many.learning_rate
    else:
        assert few == many


def test_without_decay_the_rate_is_kept():
    r = recipe(learning_rate=1.0, warmup=0.5)
    assert [r.rate_at(p) for p in (0.25, 0.5, 0.75, 1)] == [0.5, 1, 1, 1]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_name_a_budget_and_stages_up_to_its_end(name):
    r = load_recipe(name)
    assert r.name == name and r.budget() and r.stage_at(0) is r.stages[0] and r.stage_at(1.0) is r.stages[-1]


def test_the_names_of_the_options_are_those_of_the_recipes():
    assert get_args(RecipeName) == tuple(RECIPES)


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(
        TaskError,
        match=r"'speedy'; choose one of paper, quick, thorough, small-lesions, raw, modern, finetune, transplant$",
    ):
        load_recipe("speedy")


@pytest.mark.parametrize(
    "wrong", [{"budget_minutes": 1}, {"budget_epochs": None}, {"batch": 0}, {"warmup": 1}, {"learning_rate": 0}]
)
def test_a_recipe_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(ValidationError):
        recipe(**wrong)


def test_a_recipe_is_a_value_that_survives_json():
    for r in RECIPES.values():
        assert Recipe.model_validate_json(r.model_dump_json()) == r
    with pytest.raises(ValidationError):
        PAPER.batch = 1


def test_modern_drops_sequences_and_computes_in_mixed_precision():
    assert MODERN.drop_sequences > 0 and MODERN.bf16 and MODERN.averaging > 0 and MODERN.dice > 0
