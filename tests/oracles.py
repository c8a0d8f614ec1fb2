"""The published rules as plain NumPy loops in float64: an opinion independent of the library's.

Each returns the parameters after every step, for one array.
"""

import numpy as np


def lion(p, gradients, rates, b1=0.9, b2=0.99, weight_decay=0.0):
    """Chen et al. 2023, Algorithm 2: interpolate, decay and step, then track the momentum."""
    m, path = np.zeros_like(p), []
    for g, lr in zip(gradients, rates, strict=True):
        update = np.sign(b1 * m + (1 - b1) * g)
        p = p - lr * (update + weight_decay * p)
        m = b2 * m + (1 - b2) * g
        path.append(p)
    return np.array(path)


def decoupled_lion(p, gradients, rates, initial_rate, b1=0.9, b2=0.99, weight_decay=0.0):
    """DecoupledLionW: the decay is the share of the initial rate that is in force."""
    m, path = np.zeros_like(p), []
    for g, lr in zip(gradients, rates, strict=True):
        p = p * (1 - lr / initial_rate * weight_decay)
        p = p - lr * np.sign(b1 * m + (1 - b1) * g)
        m = b2 * m + (1 - b2) * g
        path.append(p)
    return np.array(path)


def lookahead_sgd(p, gradients, rates, momentum, sync_period, slow_step_size):
    """Zhang et al. 2019, Algorithm 1, around heavy-ball SGD. Returns fast and slow weights."""
    slow, m, fast_path, slow_path = p.copy(), np.zeros_like(p), [], []
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = momentum * m + g
        p = p - lr * m
        if t % sync_period == 0:
            slow = slow + slow_step_size * (p - slow)
            p = slow.copy()
        fast_path.append(p)
        slow_path.append(slow)
    return np.array(fast_path), np.array(slow_path)
