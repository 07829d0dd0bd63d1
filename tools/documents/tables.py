"""Every table of results that a page can ask for, by its name between the markers."""

from collections.abc import Callable, Mapping
from functools import partial

from documents import accuracy, brains, calibration, raw, speed, training
from documents.cells import Generated

TABLES: Mapping[str, Callable[[], Generated]] = {
    "headline": accuracy.headline,
    "tumour-left-out": accuracy.tumour_left_out,
    "tumour-by-enhancement": accuracy.tumour_by_enhancement,
    "tumour-brats2015": accuracy.tumour_brats2015,
    "tumour-subsets": accuracy.tumour_subsets,
    "tumour-components": accuracy.tumour_components,
    "tumour-intervals": accuracy.tumour_intervals,
    "tumour-interval-subsets": calibration.tumour_interval_subsets,
    "tumour-calibration": partial(calibration.calibration, "tumour"),
    "stroke-calibration": partial(calibration.calibration, "stroke"),
    "perfusion-calibration": partial(calibration.calibration, "perfusion"),
    "tumour-tta": accuracy.tumour_tta,
    "spacing": raw.spacing,
    "spacing-brats2015": raw.spacing_brats2015,
    "registration": raw.registration,
    "raw-study": raw.raw_study,
    "raw-others": raw.raw_others,
    "tumour-few-shot": training.tumour_few_shot,
    "stroke-left-out": accuracy.stroke_left_out,
    "stroke-subsets": accuracy.stroke_subsets,
    "stroke-few-shot": training.stroke_few_shot,
    "perfusion-subsets": accuracy.perfusion_subsets,
    "finetune-brats2015": training.finetune_brats2015,
    "quick-15-minutes": training.quick_15_minutes,
    "benchmark-brats2015": training.benchmark_brats2015,
    "benchmark-four-sequences": training.benchmark_four_sequences,
    "ablation": training.ablation,
    "curriculum-ablation": training.curriculum_ablation,
    "speed-shipped": speed.speed_shipped,
    "speed-vnni": speed.speed_vnni,
    "speed-amx": speed.speed_amx,
    "speed-avx2": speed.speed_avx2,
    "speed-isles": speed.speed_isles,
    "floor": speed.floor,
    "training-step": speed.training_step,
    "seams": speed.seams,
    "brain": brains.brain,
    "brain-others": brains.brain_others,
    "brain-simulated": brains.brain_simulated,
    "int8": accuracy.int8,
    "generator": speed.generator,
}
