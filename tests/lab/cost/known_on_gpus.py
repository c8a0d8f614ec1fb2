"""The programs whose bytes are known, for GPUs: what differs from a TPU, counted by hand.

`python tests/lab/cost/known_on_gpus.py` compiles and records them, as `known.py` does. There are
two GPUs on each of four hosts; along `x` they share one, along `y` they do not.
"""

import dataclasses
from typing import Any

from lab.cost.known import KNOWN, Known, record

TOPOLOGIES = {"v5e:1x1": "h100:1x1", "v5e:2x4": "h100:4x2"}
BETWEEN = 3 / 7  # of what all eight send: (h - 1) / (hk - 1)

DIFFERENCES: dict[str, dict[str, Any]] = {
    "copy_plus_one": {},
    "axpy": {},
    "lion": {},
    "four_bits": {},
    "update_in_place": {},
    "add_to_rows": {},
    "set_rows": {},
    "slice": {},
    # A roll cannot be in place: a kernel makes it, and a copy puts it where the loop carries it.
    # Besides, the counter is compared, increased, and copied at the start: 5 + 5 + 1.
    "five_times": {
        "read": 5 * 128,
        "written": 5 * 128,
        "copied": 5 * 128,
        "kernels": 5 * 4 + 1,
        "small": 5 * 2 + 1,
    },
    "who_knows_how_often": {"read": 128, "written": 128, "copied": 128, "kernels": 5, "small": 3},
    # The roll, and a copy of whatever branch was taken; the predicate.
    "sometimes": {"read": 128, "written": 128, "copied": 128, "kernels": 3, "small": 1},
    # An argument that is not donated is copied, so that the exchange can be in place.
    "all_reduce": {
        "read": 64,
        "written": 64,
        "copied": 64,
        "kernels": 2,
        "network": BETWEEN * 2 * 7 / 8 * 32,
    },
    "all_reduce_of_rows": {
        "read": 64,
        "written": 64,
        "copied": 64,
        "kernels": 2,
        "network": 2 * 3 / 4 * 32,
    },
    "reduce_scatter": {"network": BETWEEN * 7 / 8 * 32},
    # What was gathered is read once more, to add 1.
    "all_gather": {"read": 4 + 32, "written": 64, "kernels": 2, "network": BETWEEN * 7 * 4},
    "all_to_all": {"read": 64, "written": 64, "kernels": 2, "network": 3 / 4 * 32},
    # Five times an exchange and a product, after a copy of the argument.
    "five_permutations": {
        "read": 5 * 64 + 32,
        "written": 5 * 64 + 32,
        "copied": 64,
        "kernels": 5 * 4 + 2,
        "small": 5 * 2 + 1,
        "network": 5 * 32,
    },
}


def _on_gpus(known: Known) -> Known:
    name, topology = f"{known.name}_h100", TOPOLOGIES[known.topology]
    alike = {"name": name, "topology": topology, "crossed": known.sent, "kernels": 1}
    return dataclasses.replace(known, **alike | DIFFERENCES[known.name])


ON_GPUS = [_on_gpus(known) for known in KNOWN if known.name in DIFFERENCES]


if __name__ == "__main__":
    record(ON_GPUS, "jax-cuda13-plugin")
