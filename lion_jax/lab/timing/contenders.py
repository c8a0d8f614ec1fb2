"""The contenders of a benchmark: each rule as lion_jax, optax and other packages implement it."""

import dataclasses
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from lion_jax.combinators.lookahead import lookahead
from lion_jax.lab.memory import nbytes
from lion_jax.lab.timing.report import CompileSeconds
from lion_jax.optimizers.lion import lion
from lion_jax.primitives.clipping import clip_by_global_norm

# The same for all. Nothing learns here, and no value but a weight decay of 0 changes the cost.
LEARNING_RATE, WEIGHT_DECAY, SYNC_PERIOD, MAX_NORM = 1e-3, 0.1, 5, 1.0


class Runner(Protocol):
    """A rule at work, with parameters, gradients and state of its own in memory.

    Attributes:
      state_bytes: memory that stays between steps beside parameters and gradients.
      scratch_bytes: temporary memory of a step; None if unknown.
    """

    state_bytes: int
    scratch_bytes: int | None

    def step(self) -> None:
        """Starts a step."""

    def wait(self) -> None:
        """Returns when all steps are done."""

    def compile(self) -> CompileSeconds | None:
        """Compiles anew and returns what that took; None where nothing is compiled."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """An implementation of a rule.

    Attributes:
      rule: the rule; within one, everything is compared with optax's implementation.
      package: whose implementation.
      start: makes a runner from abstract parameters.
      state_bytes: from abstract parameters to the memory that stays between steps beside them.
      touches_all_state: whether every step reads and writes all of it.
    """

    rule: str
    package: str
    start: Callable[[Any], Runner]
    state_bytes: Callable[[Any], int]
    touches_all_state: bool = True


def contenders(dtype: str) -> list[Contender]:
    """All contenders that are installed, for parameters of a dtype."""
    decay: dict[str, Any] = {"weight_decay": WEIGHT_DECAY}
    narrow = {**decay, "mu_dtype": jnp.bfloat16}
    theirs, ours = optax.lion(LEARNING_RATE, **decay), lion(LEARNING_RATE, **decay)
    their_clip, our_clip = optax.clip_by_global_norm(MAX_NORM), clip_by_global_norm(MAX_NORM)
    return [
        _of_optax("lion", "optax", theirs),
        _of_optax("lion", "lion_jax", ours),
        *_flashoptim("lion", "flashoptim_jax", dtype, quantize=False),
        *_flashoptim("lion", "flashoptim_jax 8-bit", dtype, quantize=True),
        *_torch("lion", "lion_pytorch", "lion_pytorch.Lion", 1),
        *_torch("lion", "bitsandbytes", "bitsandbytes.optim.Lion", 1),
        *_torch("lion", "bitsandbytes 8-bit", "bitsandbytes.optim.Lion8bit", 1),
        _of_optax("lion_bf16_moment", "optax", optax.lion(LEARNING_RATE, **narrow)),
        _of_optax("lion_bf16_moment", "lion_jax", lion(LEARNING_RATE, **narrow)),
        _of_optax("clipped_lion", "optax", optax.chain(their_clip, theirs)),
        _of_optax("clipped_lion", "lion_jax", optax.chain(our_clip, ours)),
        _of_optax(
            "lookahead_lion",
            "optax",
            optax.lookahead(theirs, SYNC_PERIOD, 0.5),
            hold=lambda params: optax.LookaheadParams(params, jax.tree.map(_copy, params)),
            touches_all_state=False,
        ),
        _of_optax(
            "lookahead_lion",
            "lion_jax",
            lookahead(ours, SYNC_PERIOD, 0.5),
            touches_all_state=False,
        ),
        _of_optax("adamw", "optax", optax.adamw(LEARNING_RATE, **decay)),
        *_torch("adamw", "torch", "torch.optim.AdamW", 2),
    ]


def in_place_pass() -> Contender:
    """Reads and writes an array for each of the parameters': what the memory can do at best."""

    def negate(params, state, gradients):
        del gradients
        return jax.tree.map(jnp.negative, params), state

    return _of_jax("a pass in place", "jax", lambda params: (), negate)


def _of_optax(rule, package, tx, hold=lambda params: params, **settings) -> Contender:
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return _of_jax(rule, package, tx.init, step, hold, **settings)


def _of_jax(rule, package, init, step, hold=lambda params: params, **settings) -> Contender:
    def state_bytes(params):
        held = jax.eval_shape(hold, params)
        return nbytes(held) + nbytes(jax.eval_shape(init, held)) - nbytes(params)

    def start(params):
        return _JaxRunner(params, hold, init, step, state_bytes(params))

    return Contender(rule, package, start, state_bytes, **settings)


class _JaxRunner:
    """A jitted step with parameters and state donated, as in a training loop."""

    def __init__(self, params, hold, init, step, state_bytes):
        held = jax.eval_shape(hold, params)
        self._abstract = held, jax.eval_shape(init, held), params
        self._step = step
        self._program = self._lower().compile()
        memory = self._program.memory_analysis()
        self.state_bytes = state_bytes
        self.scratch_bytes = None if memory is None else memory.temp_size_in_bytes
        self._params = hold(_normal(params, seed=0))
        self._state = init(self._params)
        self._gradients = _normal(params, seed=1)

    def step(self):
        self._params, self._state = self._program(self._params, self._state, self._gradients)

    def wait(self):
        jax.block_until_ready((self._params, self._state))

    def compile(self):
        jax.clear_caches()
        start = time.perf_counter()
        lowered = self._lower()
        middle = time.perf_counter()
        lowered.compile()
        return CompileSeconds(middle - start, time.perf_counter() - middle)

    def _lower(self):
        return jax.jit(self._step, donate_argnums=(0, 1)).lower(*self._abstract)


def _flashoptim(rule, package, dtype, quantize) -> Iterator[Contender]:
    if importlib.util.find_spec("flashoptim_jax") is None:
        return
    tx = importlib.import_module("flashoptim_jax").flash_lion(
        LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        quantize=quantize,
        master_weight_bits=None if dtype == "float32" else 24,
        fused=jax.default_backend() == "gpu",  # its kernels run nowhere else
    )
    yield _of_jax(rule, package, tx.init, tx.step)


def _torch(rule, package, path, state_per_parameter) -> Iterator[Contender]:
    module, _, name = path.rpartition(".")
    installed = {"torch", module.partition(".")[0]}
    if not all(importlib.util.find_spec(package) for package in installed):
        return

    def start(params):
        return _TorchRunner(params, getattr(importlib.import_module(module), name))

    yield Contender(rule, package, start, lambda params: state_per_parameter * nbytes(params))


class _TorchRunner:
    """An optimizer of PyTorch on the same kind of device, without compilation."""

    scratch_bytes: int | None = None

    def __init__(self, params, optimizer):
        torch = importlib.import_module("torch")
        on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        self._synchronize = torch.cuda.synchronize if on_gpu else lambda: None
        device = "cuda" if on_gpu else "cpu"

        def parameter(leaf):
            dtype = getattr(torch, leaf.dtype.name)
            p = torch.nn.Parameter(torch.randn(leaf.shape, dtype=dtype, device=device))
            p.grad = torch.randn_like(p)
            return p

        leaves = [parameter(leaf) for leaf in jax.tree.leaves(params)]
        self._optimizer = optimizer(leaves, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.step()
        self.wait()
        tensors = [t for s in self._optimizer.state.values() for t in s.values()]
        self.state_bytes = sum(t.nbytes for t in tensors if torch.is_tensor(t))

    def step(self):
        self._optimizer.step()

    def wait(self):
        self._synchronize()

    def compile(self):
        return None


def _copy(x):
    return jnp.array(x, copy=True)


def _normal(params, seed):
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return treedef.unflatten(
        [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    )
