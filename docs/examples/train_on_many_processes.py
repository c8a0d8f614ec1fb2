"""Trains one model on the devices of several processes, and goes on after any of them has died.

Two processes on one machine, each in a terminal of its own (or with `&`):

    python train_on_many_processes.py --coordinator localhost:8476 --processes 2 --process 0
    python train_on_many_processes.py --coordinator localhost:8476 --processes 2 --process 1

Without the three it asks jax for its cluster (a TPU pod, SLURM, Open MPI, Kubernetes), and where
there is none it trains alone. Started again, on as many processes or on more or fewer, it goes on
from the latest checkpoint. Needs `pip install "lion-jax[checkpoints,lab]"`.
"""

import argparse
import os
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.datasets
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lion_jax
from lion_jax import checkpoints
from lion_jax.distributed import state_sharding

BATCH = 192  # examples per step, on however many devices: their number must divide it


def whole(text: str, least: int = 1) -> int:
    """A whole number of at least 1, or of `least`."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number, >= {least}; got {text!r}")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    """What the command line says: all of what makes this one of several processes, or none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--coordinator", help="address and free port of process 0, host:port")
    parser.add_argument("--processes", type=whole, help="how many processes there are")
    parser.add_argument(
        "--process", type=lambda text: whole(text, 0), help="which of them this is, from 0"
    )
    parser.add_argument(
        "--folder", default="checkpoints", help="of the checkpoints; every process must see it"
    )
    parser.add_argument("--steps", type=whole, default=200, help="to train for, in all (200)")
    parser.add_argument("--every", type=whole, default=20, help="steps between checkpoints (20)")
    parser.add_argument(
        "--devices-per-process",
        type=whole,
        default=2,
        help="on CPUs; others have what they have (2)",
    )
    arguments = parser.parse_args()
    given = [x is not None for x in (arguments.coordinator, arguments.processes, arguments.process)]
    if any(given) and not all(given):
        parser.error("--coordinator, --processes and --process go together: give all or none")
    return arguments


def connect(arguments: argparse.Namespace) -> None:
    """Makes this one of several processes, before anything else asks jax for its devices."""
    jax.config.update("jax_num_cpu_devices", arguments.devices_per_process)
    try:
        jax.distributed.initialize(
            arguments.coordinator,
            arguments.processes,
            arguments.process,
            # In seconds, by default 300, 100 and 300: how long the first process waits for the
            # last to start, how long one is silent before it is taken for dead and all others
            # are ended, and how long the first waits for the last to end.
            initialization_timeout=60,
            heartbeat_timeout_seconds=10,
            shutdown_timeout_seconds=60,
        )
    except ValueError as error:
        if "coordinator_address should be defined" not in str(error):
            raise
        # No cluster: this process is all there is.


def check_devices() -> None:
    """Ends every process alike if the batch cannot be cut into equal parts."""
    if BATCH % jax.device_count():
        possible = ", ".join(str(n) for n in range(1, BATCH + 1) if BATCH % n == 0)
        sys.exit(
            f"the number of devices of all processes must divide the batch of {BATCH}: "
            f"{possible}; got {jax.device_count()}. Try other --devices-per-process or --processes"
        )


def init(key: jax.Array) -> dict[str, jax.Array]:
    """A perceptron with one hidden layer."""
    keys = jax.random.split(key)
    return {
        "w": jax.random.normal(keys[0], (64, 256)) / 8,
        "b": jnp.zeros(256),
        "v": jax.random.normal(keys[1], (256, 10)) / 16,
    }


def loss(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy in nats."""
    logits = jax.nn.relu(x @ params["w"] + params["b"]) @ params["v"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def optimizer(steps: int) -> optax.GradientTransformation:
    """Any will do: the rest of this file does not know which it is."""
    return lion_jax.lion(optax.cosine_decay_schedule(1e-3, steps), weight_decay=0.1)


def train(arguments: argparse.Namespace) -> None:
    """From the latest checkpoint, or from nothing, to the last step."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    tx = optimizer(arguments.steps)

    # Parameters and moments lie split by their rows where the devices divide them (FSDP).
    shapes = jax.eval_shape(init, jax.random.key(0))
    place = jax.tree.map(lambda x: whole if x.shape[0] % mesh.size else split, shapes)
    place = (place, state_sharding(tx, shapes, place))
    start = jax.jit(lambda key: (p := init(key), tx.init(p)), out_shardings=place)
    run = start(jax.random.key(0))
    # All go on from what process 0 sees; one that does not see it raises, instead of starting anew.
    step = int(multihost_utils.broadcast_one_to_all(checkpoints.latest(arguments.folder) or 0))
    if step:
        _, run = checkpoints.restore(arguments.folder, like=run, step=step)

    @jax.jit(donate_argnums=0, out_shardings=(place, whole))
    def update(run, x, y):
        params, state = run
        value, gradients = jax.value_and_grad(loss)(params, x, y)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), value

    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images, labels = np.asarray(images / 16, np.float32), np.asarray(labels, np.int32)

    def batch(t):
        """That of step t, a function of t alone: each process makes the part that lies on it."""
        rows = np.random.default_rng(t).choice(len(labels), BATCH, replace=False)
        return [
            jax.make_array_from_callback(
                (BATCH, *data.shape[1:]), split, lambda index, data=data: data[rows[index[0]]]
            )
            for data in (images, labels)
        ]

    is_first = jax.process_index() == 0
    if is_first:
        print(f"step {step}: {jax.process_count()} processes, {mesh.size} devices", flush=True)
    for t in range(step, arguments.steps):
        run, value = update(run, *batch(t))
        if (t + 1) % arguments.every == 0 or t + 1 == arguments.steps:
            checkpoints.save(arguments.folder, t + 1, run)
            if is_first:
                print(f"step {t + 1}: loss {value:.4f}", flush=True)


if __name__ == "__main__":
    arguments = parse_arguments()
    connect(arguments)
    check_devices()
    try:
        train(arguments)
    except BaseException:
        # An orderly exit would first wait for the other processes, which wait for this one; left
        # like this, they notice at once. So do we when one has died: then its peer's collective
        # fails, and that is what we have caught.
        traceback.print_exc()
        print(f"process {jax.process_index()} has ended. Start all again.", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
