"""Signatures as the source writes them: ``Mask`` where Python knows only the union behind it."""

import ast
import dataclasses
import inspect
import textwrap


def setup(app):
    """Registers the signatures with autodoc."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-signature", _readable)
    return {"parallel_read_safe": True}


def _readable(app, what, name, obj, options, signature, returns):
    try:
        if inspect.isclass(obj):
            fields = _fields(obj)
            return (f"({', '.join(fields)})", None) if fields else None
        return _of_function(inspect.unwrap(obj)) if callable(obj) else None
    except (OSError, TypeError, ValueError):  # there is no source, so autodoc's own has to do
        return None


def _of_function(function):
    node = _parsed(function)
    parameters = inspect.signature(getattr(function, "__func__", function)).parameters
    args = node.args
    arguments = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    for arg in [*arguments, *filter(None, [args.vararg, args.kwarg])]:
        arg.annotation = _unquoted(arg.annotation)
    # A default that the module gives a name has a value that says more than the name.
    values = {arg.arg: repr(parameters[arg.arg].default) for arg in arguments}
    with_default = [*args.posonlyargs, *args.args][-len(args.defaults) :] if args.defaults else []
    args.defaults = [
        _expression(values[arg.arg]) or default
        for arg, default in zip(with_default, args.defaults, strict=True)
    ]
    args.kw_defaults = [
        default and (_expression(values[arg.arg]) or default)
        for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
    ]
    if args.args and args.args[0].arg in ("self", "cls"):
        del args.args[0]
    returns = node.returns and ast.unparse(_unquoted(node.returns))
    return f"({ast.unparse(args)})", returns


def _fields(cls):
    """The arguments of a tuple or dataclass, from the classes' bodies."""
    written = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("lion_jax"):
            for line in _parsed(base).body:
                if isinstance(line, ast.AnnAssign):
                    written[line.target.id] = ast.unparse(_unquoted(line.annotation))
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls) if field.init]
    else:
        names = getattr(cls, "_fields", ())
    if not written.keys() >= set(names):
        return []
    parameters = inspect.signature(cls).parameters
    return [f"{name}: {written[name]}{_default(parameters[name].default)}" for name in names]


def _default(value):
    if value is inspect._empty:
        return ""
    return f" = {value!r}" if _expression(repr(value)) else " = ..."


def _parsed(thing):
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def _unquoted(annotation):
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value).body[0].value
    return annotation


def _expression(text):
    """The text as an expression, or None if it is no Python, as of a function's repr."""
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
