"""A notebook's parameters, as the cell tagged `parameters` defines them in Python, and the values that they take."""

import ast
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from typing import Any

TAG = "parameters"
_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (float, int), "str": (str,), "list": (list,), "dict": (dict,),
    "None": (type(None),), "tuple": (list,), "List": (list,), "Dict": (dict,),
}  # fmt: skip


class UnfitError(ValueError):
    """A parameter cannot be read or cannot take a value. The text continues a sentence about the notebook."""


@dataclass(frozen=True)
class Parameter:
    """One parameter. `kinds` are the types that it takes, or None if it takes any; `default` is source text."""

    name: str
    default: str
    kinds: tuple[type, ...] | None

    def takes(self, value: Any) -> bool:
        """Whether a value is of a type that this parameter takes."""
        if self.kinds is None:
            return True
        return isinstance(value, self.kinds) and (bool in self.kinds or not isinstance(value, bool))

    @property
    def wants(self) -> str:
        """The values that it takes, in words: `an int such as 5`."""
        names = ["None" if kind is type(None) else kind.__name__ for kind in self.kinds or ()]
        if "float" in names:
            names.remove("int")
        article = "an" if names[0][0] in "aeiou" else "a"
        such = f" such as {self.default}" if self.default not in ("", "None") else ""
        return f"{article} {' or '.join(names)}{such}"


def read_cell(source: str) -> dict[str, Parameter]:
    """The parameters that a cell defines, by name, in their order.

    Args:
        source: the cell's code.

    Raises:
        UnfitError: the cell is not valid Python.
    """
    try:
        tree = _parsed(source)
    except SyntaxError as error:
        raise UnfitError(f"is not valid Python: {error.msg} in line {error.lineno} of the cell") from None
    found: dict[str, Parameter] = {}
    for statement in tree.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name, value, kinds = statement.target.id, statement.value, _annotated(statement.annotation)
            found[name] = _parameter(name, value, kinds)
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                for name, value in _assigned(target, statement.value):
                    found[name] = _parameter(name, value, None)
    return found


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError:  # it may have IPython's syntax: %matplotlib, files = !ls, limit?
        from IPython.core.inputtransformer2 import TransformerManager  # slow to import and seldom needed

        manager = TransformerManager()
        return ast.parse(manager.transform_cell(source))


def fit(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check values against the parameters.

    Args:
        known: the notebook's parameters, by name.
        given: the values, by name.

    Returns:
        The values as JSON can hold them, which is how they are archived and how the notebook gets them.

    Raises:
        UnfitError: there is no such parameter, or a value has the wrong type or cannot be written as JSON.
    """
    fitting: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known) or 'none'}"
            raise UnfitError(f"has no parameter '{name}': {meant}")
        try:
            plain = jsonable(value, name)
        except RecursionError:
            raise UnfitError(
                f"cannot take this value for '{name}': it contains itself or is nested too deeply"
            ) from None
        if not known[name].takes(plain):
            raise UnfitError(f"takes {known[name].wants} for '{name}', not {plain!r}")
        fitting[name] = plain
    return fitting


def jsonable(value: Any, name: str) -> Any:
    """A value as JSON can hold it: numpy's numbers and arrays as Python's, dates and times as ISO text.

    Args:
        value: the value.
        name: the parameter's name, for the error.

    Raises:
        UnfitError: JSON cannot hold the value, or would turn it into something else.
    """
    value = _without_numpy(value, name)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise UnfitError(f"cannot take {value} for '{name}': JSON has only finite numbers")
    if isinstance(value, date | time):  # a datetime is a date
        if value != value:  # only NaT (pandas) does not equal itself
            raise _no_time(name)
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [jsonable(item, name) for item in value]
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise UnfitError(f"cannot take {{{wrong[0]!r}: …}} for '{name}': in JSON, keys are texts")
        return {key: jsonable(item, name) for key, item in value.items()}
    raise UnfitError(
        f"cannot take a {type(value).__name__} for '{name}': give text, a number, a date, True, False, None, or a "
        "list or dict of them"
    )


def _without_numpy(value: Any, name: str) -> Any:
    """A number or an array of numpy as Python's; any other value as it is."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("m", "M"):  # a time or a duration: as nanoseconds, `tolist` would make it a plain number
        value = value.astype(f"{kind}8[us]")
        if (value != value).any():  # only NaT does not equal itself
            raise _no_time(name)
    return value.tolist() if hasattr(value, "tolist") else value


def _no_time(name: str) -> UnfitError:
    return UnfitError(f"cannot take NaT for '{name}': JSON cannot hold a missing time")


def finite(value: Any) -> Any:
    """A value with None in place of everything that is not a number (NaN, NaT, infinity)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return value


def _parameter(name: str, value: ast.expr | None, kinds: tuple[type, ...] | None) -> Parameter:
    try:
        default = ast.literal_eval(value) if value is not None else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return Parameter(name, ast.unparse(value) if value is not None else "", kinds)
    if kinds is None and default is not None:
        kinds = _KINDS.get(type(default).__name__)
    return Parameter(name, repr(default) if value is not None else "", kinds)


def _assigned(target: ast.expr, value: ast.expr) -> list[tuple[str, ast.expr]]:
    """The names that an assignment defines, each with its expression."""
    if isinstance(target, ast.Name):
        return [(target.id, value)]
    if isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        if len(parts) == len(target.elts):
            return [pair for each in zip(target.elts, parts, strict=True) for pair in _assigned(*each)]
    return []


def _annotated(annotation: ast.expr) -> tuple[type, ...] | None:
    """The types that an annotation allows, or None if this module does not know the annotation."""
    if isinstance(annotation, ast.Constant):
        if annotation.value is None:
            return _KINDS["None"]
        if isinstance(annotation.value, str):  # "int"
            try:
                return _annotated(ast.parse(annotation.value, mode="eval").body)
            except SyntaxError:
                return None
    if isinstance(annotation, ast.Name):
        return _KINDS.get(annotation.id)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _either(annotation.left, annotation.right)
    if isinstance(annotation, ast.Subscript):
        outer = annotation.value.id if isinstance(annotation.value, ast.Name) else ""
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if outer == "Optional":
            return _either(*inner, ast.Constant(None))
        if outer == "Union":
            return _either(*inner)
        return _KINDS.get(outer)
    return None


def _either(*annotations: ast.expr) -> tuple[type, ...] | None:
    each = [_annotated(annotation) for annotation in annotations]
    if any(kinds is None for kinds in each):
        return None
    return tuple(dict.fromkeys(kind for kinds in each for kind in kinds or ()))
