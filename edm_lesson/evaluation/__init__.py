"""Measuring quality: digits against MNIST, over samplers and over ways to train."""

from edm_lesson.evaluation.classifier import (
    CLASSIFIER,
    DigitClassifier,
    central,
    jitter,
    load_classifier,
    save_classifier,
    train_classifier,
)
from edm_lesson.evaluation.distance import distance_ratio, frechet_distance, real_distance
from edm_lesson.evaluation.judge import (
    CONFIDENCE,
    Judge,
    batch_size_for,
    check_digits,
    evaluate,
    evaluate_seed,
    evaluate_steps,
    in_batches,
    mean_and_spread,
    nearest_distances,
    quality_table,
)

__all__ = [
    "CLASSIFIER",
    "CONFIDENCE",
    "DigitClassifier",
    "Judge",
    "batch_size_for",
    "central",
    "check_digits",
    "distance_ratio",
    "evaluate",
    "evaluate_seed",
    "evaluate_steps",
    "frechet_distance",
    "in_batches",
    "jitter",
    "load_classifier",
    "mean_and_spread",
    "nearest_distances",
    "quality_table",
    "real_distance",
    "save_classifier",
    "train_classifier",
]
