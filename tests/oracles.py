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


def lars(p, gradients, rates, momentum, weight_decay, coefficient, scale_clip, nesterov):
    """You et al. 2017, Algorithm 1, the learning rate inside the momentum."""
    m, path = np.zeros_like(p), []
    for g, lr in zip(gradients, rates, strict=True):
        norm = np.linalg.norm(p)
        phi = norm if scale_clip is None else np.clip(norm, *scale_clip)
        ratio = coefficient * phi / (np.linalg.norm(g) + weight_decay * norm)
        step = lr * ratio * (g + weight_decay * p)
        m = momentum * m + step
        p = p - (step + momentum * m if nesterov else m)
        path.append(p)
    return np.array(path)


def lamb(p, gradients, rates, weight_decay, scale_clip, b1=0.9, b2=0.999, eps=1e-8):
    """You et al. 2020, Algorithm 2, with bias correction."""
    m, v, path = np.zeros_like(p), np.zeros_like(p), []
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * p
        norm = np.linalg.norm(p)
        phi = norm if scale_clip is None else np.clip(norm, *scale_clip)
        p = p - lr * phi / np.linalg.norm(u) * u
        path.append(p)
    return np.array(path)


def rectified_adam(gradients, b1, b2, eps, force):
    """Liu et al. 2020, Algorithm 2: the directions."""
    m, v, path = np.zeros_like(gradients[0]), np.zeros_like(gradients[0]), []
    longest = 2 / (1 - b2) - 1
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        length = longest - 2 * t * b2**t / (1 - b2**t)
        adam = m_hat / (np.sqrt(v_hat) + eps)
        if length > 4:
            r = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            path.append(np.sqrt(r) * adam)
        else:
            path.append(adam if force else m_hat)
    return np.array(path)


def scout_sgd(p, gradients, rate, sync_period, least):
    """Scout around SGD with all the updates of a period in memory, for one leaf."""
    slow, updates, path = p.copy(), [], []
    for g in gradients:
        updates.append(-rate * g)
        p = p + updates[-1]
        if len(updates) == sync_period:
            u = np.array(updates)
            deviation = np.abs(u - u.mean(0)).max(0)
            std = u.std(0, ddof=1)
            ratio = np.where(deviation > 0, std / np.where(deviation > 0, deviation, 1), 0)
            slow = slow + max(1 - ratio.mean(), least) * (p - slow)
            p, updates = slow.copy(), []
        path.append(p)
    return np.array(path)


def lion_k(p, gradients, rates, shape, b1=0.9, b2=0.99, weight_decay=0.0):
    """Chen et al. 2023 (Lion-K), with this library's rates."""
    m, path = np.zeros_like(p), []
    for g, lr in zip(gradients, rates, strict=True):
        p = p - lr * (shape(b1 * m + (1 - b1) * g) + weight_decay * p)
        m = b2 * m + (1 - b2) * g
        path.append(p)
    return np.array(path)


def lion_k_of_new_momentum(p, gradients, rates, shape, b_n, b_p):
    """The same under its authors' rates: the gradient is mixed with the new momentum."""
    m, path = np.zeros_like(p), []
    for g, lr in zip(gradients, rates, strict=True):
        m = b_p * m + (1 - b_p) * g
        p = p - lr * shape(b_n * m + (1 - b_n) * g)
        path.append(p)
    return np.array(path)


def lp_sign(c, p):
    """The gradient of the lp norm."""
    return np.sign(c) * np.abs(c) ** (p - 1) / np.sum(np.abs(c) ** p) ** ((p - 1) / p)


def top_k_sign(c, k):
    """The sign of the k entries of largest magnitude."""
    least = np.sort(np.abs(c), axis=None)[-k]
    return np.sign(c) * (np.abs(c) >= least)


def signum(p, gradients, rates, b, weight_decay, *, nesterov=False, scale=1.0):
    """Bernstein et al. 2018, Algorithm 2; with Nesterov's look ahead as in NVIDIA's code."""
    m, path = np.zeros_like(p), []
    for g, lr in zip(gradients, rates, strict=True):
        m = b * m + (1 - b) * g
        direction = b * m + (1 - b) * g if nesterov else m
        p = p - lr * (scale * np.sign(direction) + weight_decay * p)
        path.append(p)
    return np.array(path)


def tiger(p, gradients, rates, b, weight_decay):
    """Su 2023, for one kernel."""
    m, path = np.zeros_like(p), []
    for g, lr in zip(gradients, rates, strict=True):
        m = b * m + (1 - b) * g
        p = p - lr * np.sqrt(np.mean(p**2)) * (np.sign(m) + weight_decay * p)
        path.append(p)
    return np.array(path)


def _corrected(g, last, b, gamma, max_norm):
    a = g + gamma * b / (1 - b) * (g - last)
    norm = np.linalg.norm(a)
    return a * max_norm / norm if norm > max_norm else a


def mars_lion(p, gradients, rates, b, weight_decay, gamma, max_norm):
    """MARS-Lion of Yuan et al. 2024, from a gradient of 0."""
    m, last, path = np.zeros_like(p), np.zeros_like(p), []
    for g, lr in zip(gradients, rates, strict=True):
        m = b * m + (1 - b) * _corrected(g, last, b, gamma, max_norm)
        p = p - lr * (np.sign(m) + weight_decay * p)
        last = g
        path.append(p)
    return np.array(path)


def mars_adamw(p, gradients, rates, b1, b2, weight_decay, gamma, max_norm, eps=1e-8):
    """MARS-AdamW of Yuan et al. 2024, from a gradient of 0."""
    m, v, last, path = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p), []
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        a = _corrected(g, last, b1, gamma, max_norm)
        m, v = b1 * m + (1 - b1) * a, b2 * v + (1 - b2) * a**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - lr * (u + weight_decay * p)
        last = g
        path.append(p)
    return np.array(path)


def cautious_lion(p, gradients, rates, b1, b2, weight_decay, rescale):
    """Liang et al. 2024, Algorithm 1, with the rescalings that packages have for it."""
    m, path = np.zeros_like(p), []
    for g, lr in zip(gradients, rates, strict=True):
        u = np.sign(b1 * m + (1 - b1) * g)
        kept = np.signbit(u) == np.signbit(g) if rescale == "sign_bits" else u * g > 0
        n, size = kept.sum(), kept.size
        factor = {
            "count": size / (n + 1),
            "mean": 1 / max(n / size, 1e-5),
            "mean_1e-3": 1 / max(n / size, 1e-3),
            "sign_bits": size / max(n, 1),
            None: 1.0,
        }[rescale]
        p = p - lr * (factor * kept * u + weight_decay * p)
        m = b2 * m + (1 - b2) * g
        path.append(p)
    return np.array(path)


def newton_schulz(c, steps):
    """Muon's iteration."""
    x = c.T if c.shape[0] > c.shape[1] else c
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if c.shape[0] > c.shape[1] else x
