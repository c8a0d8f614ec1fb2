"""Programs whose bytes are known: small enough to count by hand.

`python tests/lab/cost/known.py` compiles them and records their text beside this file, in
`programs/`, without what says nothing about bytes. `known_on_gpus.py` has the same ones for GPUs.
"""

import dataclasses
import functools
import importlib.metadata
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lion_jax

MIB = 2**20
BOTH = ("x", "y")
REPLICATED = P()
WHOLE = (REPLICATED, REPLICATED)
PROGRAMS = Path(__file__).parent / "programs"


@dataclasses.dataclass(frozen=True)
class Known:
    """A program and what it moves, in MiB of one chip.

    Attributes:
      name: of its recorded text.
      topology: what it is compiled for.
      function: what is compiled.
      shapes: of its arguments, whole, with their dtypes.
      specs: where they lie.
      out: where the result lies.
      read: from HBM, up to scalars.
      written: to HBM, up to scalars.
      sent: to other chips.
      crossed: the same times the links that it crosses.
      kinds: of its collectives.
      network: of what is sent, between hosts.
      kernels: launches of a GPU.
      small: those of them that move less than 1 kB.
      copied: bytes of kernels that only copy, read and written.
      donated: arguments that are overwritten.
      mapped: whether each chip runs the function on its own part.
    """

    name: str
    topology: str
    function: Callable[..., Any]
    shapes: tuple[tuple[tuple[int, ...], Any], ...]
    read: float
    written: float
    specs: tuple[P, ...] = WHOLE
    out: P = REPLICATED
    sent: float = 0.0
    crossed: float = 0.0
    kinds: tuple[str, ...] = ()
    network: float = 0.0
    kernels: int = 0
    small: int = 0
    copied: float = 0.0
    donated: tuple[int, ...] = ()
    mapped: bool = True


def _around(axis: str, n: int) -> Callable[[jax.Array], jax.Array]:
    return lambda x: lax.ppermute(x, axis, [(i, (i + 1) % n) for i in range(n)])


def _lion(p, g, m):
    tx = lion_jax.lion(1e-3, weight_decay=0.1)
    state = optax.tree_utils.tree_set(tx.init(p), mu=m)
    updates, state = tx.update(g, state, p)
    return optax.apply_updates(p, updates), optax.tree_utils.tree_get(state, "mu")


F32, INT8 = jnp.float32, jnp.int8
X = ((4096, 4096), F32)  # 64 MiB
PART = ((512, 4096), F32)  # 8 MiB
COUNT = ((), jnp.int32)
ROWS = ((512,), jnp.int32)
INDICES = 4 * 512 / MIB
ONE, EIGHT, POD = "v5e:1x1", "v5e:2x4", "v5e:16x16"
EACH = (P(BOTH),)

KNOWN = [
    Known("copy_plus_one", ONE, lambda x: x + 1, (X,), 64, 64),
    Known("axpy", ONE, lambda x, y: 2 * x + y, (X, X), 128, 64),
    Known("lion", ONE, _lion, (X, X, X), 192, 128, (P(),) * 3, donated=(0, 2)),
    Known("four_bits", ONE, lambda x: x.astype(jnp.int4), (X,), 64, 8),
    Known(
        "update_in_place",
        ONE,
        lambda x, u: lax.dynamic_update_slice(x, u, (8, 0)),
        (X, PART),
        8,
        8,
        donated=(0,),
    ),
    Known(
        "add_to_rows",
        ONE,
        lambda x, i, u: x.at[i].add(u),
        (X, ROWS, PART),
        8 + 8 + INDICES,  # the update and what it is added to
        8,
        (P(),) * 3,
        donated=(0,),
    ),
    Known(
        "set_rows",
        ONE,
        lambda x, i, u: x.at[i].set(u),
        (X, ROWS, PART),
        8 + INDICES,
        8,
        (P(),) * 3,
        donated=(0,),
    ),
    Known(
        "slice",
        ONE,
        lambda x, i: lax.dynamic_slice(x, (8 * i, 0), (512, 4096)) + 1,
        (X, COUNT),
        8,
        8,
    ),
    Known(
        "five_times",
        ONE,
        lambda x: lax.fori_loop(0, 5, lambda i, c: 2 * jnp.roll(c, 1, 0), x),
        (X,),
        5 * 64,
        5 * 64,
        donated=(0,),
    ),
    Known(
        "who_knows_how_often",
        ONE,
        lambda x, n: lax.fori_loop(0, n, lambda i, c: 2 * jnp.roll(c, 1, 0), x),
        (X, COUNT),
        64,
        64,
        donated=(0,),
    ),
    Known(
        "sometimes",
        ONE,
        lambda x, n: lax.cond(n > 3, lambda x: 2 * jnp.roll(x, 1, 0), lambda x: x, x),
        (X, COUNT),
        64,
        64,
        donated=(0,),
    ),
    Known(
        "all_reduce",
        EIGHT,
        lambda x: lax.psum(x, BOTH),
        (((8 * 4096, 2048), F32),),
        32,
        32,
        EACH,
        sent=2 * 7 / 8 * 32,
        crossed=2 * 7 / 8 * 32,  # the eight chips form a ring of neighbours
        kinds=("all-reduce",),
    ),
    Known(
        "all_reduce_of_rows",
        EIGHT,
        lambda x: lax.psum(x, "y"),
        (((8 * 4096, 2048), F32),),
        32,
        32,
        EACH,
        P("x"),
        sent=2 * 3 / 4 * 32,
        crossed=2 * 3 / 4 * 32 * 6 / 4,  # four in a row: the way back crosses three links
        kinds=("all-reduce",),
    ),
    Known(
        "reduce_scatter",
        EIGHT,
        lambda x: lax.psum_scatter(x, BOTH, tiled=True),
        (((8 * 8192, 1024), F32),),
        32,
        4,
        EACH,
        P(BOTH),
        sent=7 / 8 * 32,
        crossed=7 / 8 * 32,
        kinds=("reduce-scatter",),
    ),
    Known(
        "all_gather",
        EIGHT,
        lambda x: lax.all_gather(x, BOTH, tiled=True) + 1,
        (((8192, 1024), F32),),
        4,
        32,
        EACH,
        sent=7 * 4,
        crossed=7 * 4,
        kinds=("all-gather",),
    ),
    Known(
        "all_to_all",
        EIGHT,
        lambda x: lax.all_to_all(x, "y", 0, 0, tiled=True) + 1,
        (((8 * 32768, 1024), INT8),),
        32,
        32,
        EACH,
        P(BOTH),
        sent=3 / 4 * 32,
        crossed=3 / 4 * 32 * 5 / 3,  # distances in a row of four: three of 1, two of 2, one of 3
        kinds=("all-to-all",),
    ),
    Known(
        "permutation",
        POD,
        lambda x: _around("x", 16)(x) + 1,
        (((256 * 1024, 1024), F32),),
        4,
        4,
        EACH,
        P(BOTH),
        sent=4,
        crossed=4,
        kinds=("collective-permute",),
    ),
    Known(
        "five_permutations",
        EIGHT,
        lambda x: lax.fori_loop(0, 5, lambda i, c: 2 * _around("y", 4)(c), x),
        (((8 * 8192, 1024), F32),),
        32,
        32,
        EACH,
        P(BOTH),
        sent=5 * 32,
        crossed=5 * 32 * 6 / 4,
        kinds=("collective-permute",),
    ),
    Known(
        "mean_of_replicas",
        POD,
        lambda x: jnp.mean(x, 0),
        (((256, 4096, 4096), F32),),
        64,
        64,  # what is averaged stays on the chip until it is scaled
        EACH,
        sent=2 * 255 / 256 * 64,
        crossed=2 * 255 / 256 * 64,
        kinds=("all-reduce",),
        mapped=False,
    ),
]
"""All but `fused_reduce_scatter`, whose padding is the compiler's."""

FUSED = Known(
    "fused_reduce_scatter",
    POD,
    lambda x: lax.psum_scatter(x, "x", tiled=True),
    (((256 * 16384, 1024), F32),),
    64,
    4,
    EACH,
    P(BOTH),
    sent=15 / 16 * 64,
    kinds=("reduce-scatter",),
)


@functools.cache
def compiled(known: Known) -> str:
    """The text of the program, compiled now."""
    from lion_jax.lab.cost.topology import describe

    mesh = Mesh(describe(known.topology).mesh.devices, BOTH)
    function = known.function
    if known.mapped:
        specs = known.specs[: len(known.shapes)]
        function = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=known.out, check_vma=False
        )
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
        for (shape, dtype), spec in zip(known.shapes, known.specs, strict=False)
    ]
    jitted = jax.jit(
        function, donate_argnums=known.donated, out_shardings=NamedSharding(mesh, known.out)
    )
    return jitted.lower(*arguments).compile().as_text()


def recorded(known: Known) -> str:
    """The text of the program as it was recorded."""
    return (PROGRAMS / f"{known.name}.hlo").read_text()


def _without_noise(text: str) -> str:
    """Without files and frames, the compiler's settings, and where in the source it was."""
    lines = [line for line in text.splitlines() if re.match(r"\S*HloModule|%|ENTRY|}| {2}", line)]
    lines = [re.sub(r", backend_config=\{.*", "", line) for line in lines]
    return "\n".join(re.sub(r" ?stack_frame_id=\d+", "", line) for line in lines) + "\n"


def record(programs: Iterable[Known], compiler: str) -> None:
    """Records programs, with the package that compiled them."""
    version = importlib.metadata.version(compiler)
    for known in programs:
        header = (
            f"// {known.name} of known.py for {known.topology}: "
            f"jax {jax.__version__}, {compiler} {version}\n"
        )
        path = PROGRAMS / f"{known.name}.hlo"
        path.write_text(header + _without_noise(compiled(known)))
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    record([*KNOWN, FUSED], "libtpu")
