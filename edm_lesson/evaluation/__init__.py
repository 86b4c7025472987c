"""Measuring quality: digits against MNIST, over samplers and over ways to train."""

from edm_lesson.evaluation.classifier import DigitClassifier, center_crop, in_batches, load_classifier
from edm_lesson.evaluation.distance import distance_ratio, frechet_distance, real_distance
from edm_lesson.evaluation.judge import Judge, check_digits, evaluate, nearest_distances
from edm_lesson.evaluation.table import mean_and_spread
