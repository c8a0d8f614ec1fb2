"""Inline code that names a documented object becomes a link, and so do bare names of types.

``lion_jax.with_metrics``, ``with_metrics``, ``precision.with_master_weights(inner)`` and
``jnp.where`` are links; what names nothing, or more than one thing, stays as it is.
"""

import re

from docutils import nodes
from sphinx.addnodes import desc, desc_signature, pending_xref
from sphinx.ext.intersphinx import resolve_reference_any_inventory
from sphinx.transforms.post_transforms import SphinxPostTransform

ALIASES = {"jnp": "jax.numpy", "np": "numpy", "Path": "pathlib.Path"}
OUTSIDE = ("jax", "numpy", "optax")
NAME = re.compile(r"([A-Za-z_][\w.]*)(\(.*\))?", re.DOTALL)


def setup(app):
    """Registers the transform and the search for types."""
    app.add_post_transform(InlineNames)
    app.connect("missing-reference", _bare_type)
    return {"parallel_read_safe": True}


class InlineNames(SphinxPostTransform):
    """Wraps inline code in a reference that the next transform resolves."""

    default_priority = 5  # before Sphinx resolves references

    def run(self):
        """Goes over the inline code of a page."""
        objects = self.env.domains.python_domain.objects
        for literal in list(self.document.findall(nodes.literal)):
            target = _target(literal.astext(), objects)
            if target is None or _is_in(literal, nodes.title, nodes.reference, pending_xref):
                continue
            if _is_in(literal, desc_signature) or target in _described(literal):
                continue
            reference = pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refdoc=self.env.docname
            )
            reference["classes"] = ["inline-name"]
            literal.replace_self(reference)
            reference += literal


def _target(code, objects):
    match = NAME.fullmatch(code)
    if match is None:
        return None
    name = match[1]
    for full in (name, f"lion_jax.{name}"):
        if full in objects:
            return full
    first, _, rest = name.partition(".")
    first = ALIASES.get(first, first)
    if rest:
        return f"{first}.{rest}" if first.split(".")[0] in OUTSIDE else None
    return _only(name, objects) if "_" in name or name[0].isupper() else None


def _only(name, objects):
    """The one object of that last name, if it is one."""
    found = [full for full in objects if full.endswith(f".{name}")]
    return found[0] if len(found) == 1 else None


def _is_in(node, *kinds):
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def _described(node):
    """Names of the objects in whose description the node stands."""
    names = set()
    while node.parent is not None:
        node = node.parent
        if isinstance(node, desc):
            for signature in node.findall(desc_signature):
                names.update(signature["ids"])
    return names


def _bare_type(app, env, node, contnode):
    """A type as annotations write it: ``Cell`` of a deeper module, ``Path``, ``np.ndarray``."""
    name = node.get("reftarget", "")
    first, dot, rest = name.partition(".")
    if node.get("refdomain") != "py":
        return None
    full = ALIASES.get(first, first) + dot + rest
    if full == name:
        full = _only(name, env.domains.python_domain.objects) if not dot else None
    if full is None:
        return None
    node["reftarget"] = full
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", full, node, contnode
    ) or resolve_reference_any_inventory(env, False, node, contnode)
