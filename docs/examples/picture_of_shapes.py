"""Draw what each shape makes of a momentum in 2-D: `python picture_of_shapes.py FILE`."""

import sys

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from lion_jax.primitives import signs

SHAPES = {
    "sign: Lion": signs.sign(),
    "tanh(4)": signs.tanh(4.0),
    "huber(0.5)": signs.huber(0.5),
    "lp_sign(1.3)": signs.lp_sign(1.3),
    "l2_normalize()": signs.l2_normalize(),
    "top_k_sign(1)": signs.top_k_sign(1),
}


def directions(shape, momenta):
    """The direction for each momentum of shape (2,)."""
    state = shape.init(momenta[0])
    return np.array([shape.update(c, state)[0] for c in momenta])


def main(file):
    """One panel for each shape: momenta on two circles, and where they go."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False) + 0.03
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.4), sharex=True, sharey=True)
    for axis, name in zip(axes.flat, SHAPES, strict=True):
        for radius, marker in ((0.9, "o"), (0.3, "x")):
            start = radius * circle
            end = directions(SHAPES[name], jnp.asarray(start, jnp.float32))
            for c, u in zip(start, end, strict=True):
                axis.plot(*zip(c, u, strict=True), color="0.85", linewidth=0.7, zorder=1)
            axis.scatter(*start.T, c=angles, cmap="hsv", s=8, marker=marker, alpha=0.5, zorder=2)
            axis.scatter(*end.T, c=angles, cmap="hsv", s=34, marker=marker, zorder=3)
        axis.set(title=name, aspect="equal", xlim=(-1.35, 1.35), ylim=(-1.35, 1.35))
        axis.axhline(0, color="0.9", linewidth=0.5, zorder=0)
        axis.axvline(0, color="0.9", linewidth=0.5, zorder=0)
    figure.suptitle("Momenta on two circles (small marks), and their directions (large marks)")
    figure.tight_layout()
    figure.savefig(file, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
