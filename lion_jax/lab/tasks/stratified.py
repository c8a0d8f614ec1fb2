"""Splits of labelled examples, with the classes in proportion."""

import numpy as np
from sklearn.model_selection import train_test_split

from lion_jax.lab.tasks.data import Data, Labelled


def stratified(x: np.ndarray, y: np.ndarray) -> Data:
    """Splits 60/20/20, always the same way and with the classes in proportion."""
    everything = np.arange(len(y))
    train, rest = train_test_split(everything, test_size=0.4, stratify=y, random_state=0)
    validation, test = train_test_split(rest, test_size=0.5, stratify=y[rest], random_state=0)
    return Data(*(Labelled(x[rows], y[rows]) for rows in (train, validation, test)))
