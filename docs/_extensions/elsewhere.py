"""Addresses of the names of other packages that these pages refer to.

They make the inventories that intersphinx would fetch: a build needs no network. To add a name,
look up its page and put it into the list of that address.
"""

import zlib
from pathlib import Path

ADDRESSES = {
    "optax": "https://optax.readthedocs.io/en/latest/",
    "jax": "https://docs.jax.dev/en/latest/",
    "numpy": "https://numpy.org/doc/stable/",
    "python": "https://docs.python.org/3/",
}

GENERATED = "api/generated/{}.html#{}"
SUMMARY = "_autosummary/{}.html#{}"

NAMES = {
    "optax": {
        GENERATED: """
            optax.EmptyState optax.GradientTransformation optax.GradientTransformationExtraArgs
            optax.LookaheadParams optax.MultiSteps optax.OptState optax.Params
            optax.TransformInitFn optax.Updates optax.adabelief optax.adadelta optax.adafactor
            optax.adagrad optax.adam optax.adamw optax.adan optax.amsgrad optax.apply_if_finite
            optax.apply_updates optax.chain optax.clip optax.clip_by_block_rms
            optax.clip_by_global_norm optax.contrib.ademamix
            optax.contrib.differentially_private_aggregate optax.contrib.muon
            optax.contrib.reduce_on_plateau optax.contrib.schedule_free_adamw
            optax.contrib.split_real_and_imaginary optax.ema optax.flatten optax.global_norm
            optax.identity optax.lamb optax.lars optax.lbfgs optax.lion optax.lookahead
            optax.masked optax.nadamw optax.partition optax.radam optax.rmsprop
            optax.safe_increment optax.scale optax.scale_by_adadelta optax.scale_by_adam
            optax.scale_by_adan optax.scale_by_amsgrad optax.scale_by_belief
            optax.scale_by_learning_rate optax.scale_by_lion optax.scale_by_param_block_rms
            optax.scale_by_radam optax.scale_by_rms optax.scale_by_schedule
            optax.scale_by_sign optax.scale_by_stddev optax.scale_by_trust_ratio
            optax.set_to_zero optax.sgd optax.signum optax.stateless
            optax.stateless_with_tree_map optax.trace optax.tree_utils.tree_get
            optax.tree_utils.tree_get_all_with_path optax.tree_utils.tree_map_params
            optax.tree_utils.tree_set optax.with_extra_args_support
            """,
        # Published under its module, called without it.
        "api/generated/optax.schedules.{0.name}.html#optax.schedules.{0.name}": """
            optax.Schedule optax.constant_schedule optax.cosine_decay_schedule
            optax.cosine_onecycle_schedule optax.inject_hyperparams optax.join_schedules
            optax.linear_schedule optax.warmup_cosine_decay_schedule
            """,
        "api/generated/optax.losses.{0.name}.html#optax.losses.{0.name}": """
            optax.softmax_cross_entropy_with_integer_labels optax.l2_loss
            """,
        "api/microbatching.html": "optax.microbatching",
        "api/contrib.html": "optax.contrib",
    },
    "jax": {
        SUMMARY: """
            jax.Array jax.ShapeDtypeStruct jax.block_until_ready jax.debug.callback jax.debug_infs
            jax.debug_nans jax.default_backend jax.device_count jax.device_get jax.device_put
            jax.devices jax.distributed.initialize jax.eval_shape jax.grad jax.jit
            jax.lax.all_gather jax.lax.axis_index jax.lax.bitcast_convert_type jax.lax.cond
            jax.lax.fori_loop jax.lax.optimization_barrier jax.lax.platform_dependent
            jax.lax.pmean jax.lax.psum jax.lax.psum_scatter jax.lax.reduce_precision jax.lax.scan
            jax.lax.stop_gradient jax.lax.top_k jax.lax.with_sharding_constraint
            jax.make_array_from_callback jax.make_jaxpr jax.make_mesh jax.nn.relu jax.numpy.abs
            jax.numpy.arange jax.numpy.array jax.numpy.asarray jax.numpy.bfloat16 jax.numpy.dtype
            jax.numpy.finfo jax.numpy.float16 jax.numpy.float32 jax.numpy.int8 jax.numpy.isfinite
            jax.numpy.mean jax.numpy.ones jax.numpy.sign jax.numpy.stack jax.numpy.sum
            jax.numpy.tanh jax.numpy.where jax.numpy.zeros jax.numpy.zeros_like jax.pmap
            jax.process_count jax.process_index jax.random.fold_in jax.random.key
            jax.random.normal jax.random.permutation jax.random.split jax.random.uniform
            jax.set_mesh jax.shard_map jax.tree.flatten jax.tree.leaves jax.tree.map
            jax.tree.structure jax.tree_util.KeyPath jax.tree_util.keystr
            jax.tree_util.tree_flatten_with_path jax.tree_util.tree_leaves_with_path
            jax.tree_util.tree_map_with_path jax.typing.ArrayLike jax.value_and_grad jax.vmap
            """,
        "jax.sharding.html#{}": """
            jax.sharding.Mesh jax.sharding.NamedSharding jax.sharding.PartitionSpec
            jax.sharding.Sharding
            """,
        "jax.numpy.html": "jax.numpy",
        "jax.lax.html": "jax.lax",
    },
    "numpy": {"reference/generated/{}.html#{}": "numpy.ndarray numpy.isfinite numpy.median"},
    "python": {
        "library/pathlib.html#{}": "pathlib.Path",
        "library/exceptions.html#{}": "KeyError TypeError ValueError",
    },
}


class _Name(str):
    @property
    def name(self):
        return self.rpartition(".")[2]


def inventories(folder):
    """Writes an inventory for each package; gives what `intersphinx_mapping` wants."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    mapping = {}
    for package, pages in NAMES.items():
        lines = []
        for page, names in pages.items():
            for name in map(_Name, names.split()):
                last = name.name
                if "#" not in page:
                    kind = "module"
                else:
                    kind = "class" if last[0].isupper() or package == "python" else "function"
                lines.append(f"{name} py:{kind} 1 {page.format(name, name)} -\n")
        head = f"# Sphinx inventory version 2\n# Project: {package}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        path = Path(folder) / f"{package}.inv"
        path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))
        mapping[package] = (ADDRESSES[package], str(path))
    return mapping
