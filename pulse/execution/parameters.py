"""A notebook's parameters: what the cell tagged `parameters` offers, read as Python, and what may be given for it."""

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
    """What was given does not fit; the text is a sentence without its end."""


@dataclass(frozen=True)
class Parameter:
    """One parameter. `kinds` are the types that it takes, None where any will do; `default` is source text."""

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
        """What it takes, in words: `an int such as 5`."""
        names = ["None" if kind is type(None) else kind.__name__ for kind in self.kinds or ()]
        if "float" in names:
            names.remove("int")
        article = "an" if names[0][0] in "aeiou" else "a"
        such = f" such as {self.default}" if self.default not in ("", "None") else ""
        return f"{article} {' or '.join(names)}{such}"


def read(source: str) -> dict[str, Parameter]:
    """The parameters that a cell offers, by name in their order.

    Raises:
        UnfitError: the cell is not Python.
    """
    try:
        tree = _parsed(source)
    except SyntaxError as error:
        raise UnfitError(f"is not valid Python: {error.msg} in its line {error.lineno}") from None
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
    except SyntaxError:  # it may be IPython's: %matplotlib, files = !ls, limit?
        from IPython.core.inputtransformer2 import TransformerManager  # slow to import, and seldom needed

        return ast.parse(TransformerManager().transform_cell(source))


def fit(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, as JSON can hold it, and so as it is archived and as the notebook gets it.

    Raises:
        UnfitError: one is not known, not of its parameter's type, or nothing that JSON can hold.
    """
    fitting: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean '{near[0]}'" if near else f"it has {', '.join(known) or 'none'}"
            raise UnfitError(f"has no parameter '{name}': {meant}?")
        try:
            plain = jsonable(value, name)
        except RecursionError:
            raise UnfitError(f"cannot be given for '{name}' what holds itself, or is nested too deeply") from None
        if not known[name].takes(plain):
            raise UnfitError(f"takes {known[name].wants} for '{name}', not {plain!r}")
        fitting[name] = plain
    return fitting


def jsonable(value: Any, name: str) -> Any:
    """A value as JSON can hold it: numpy's numbers and arrays as Python's, dates and times as ISO text.

    Raises:
        UnfitError: JSON has nothing for it, or it would come back as something else.
    """
    if getattr(getattr(value, "dtype", None), "kind", "") in (
        "m",
        "M",
    ):  # in nanoseconds these would become plain numbers
        value = value.astype(f"{value.dtype.kind}8[us]")
        if (value != value).any():  # NaT alone is not itself
            raise UnfitError(f"cannot be given NaT for '{name}': JSON has no time that is none")
    if hasattr(value, "tolist"):  # numpy's
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise UnfitError(f"cannot be given {value} for '{name}': JSON has only finite numbers")
    if isinstance(value, date | time):  # a datetime is a date
        if value != value:  # pandas' NaT alone is not itself
            raise UnfitError(f"cannot be given NaT for '{name}': JSON has no time that is none")
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [jsonable(item, name) for item in value]
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise UnfitError(f"cannot be given {{{wrong[0]!r}: …}} for '{name}': a key is text in JSON")
        return {key: jsonable(item, name) for key, item in value.items()}
    raise UnfitError(
        f"cannot be given a {type(value).__name__} for '{name}': give text, a number, a date, True, False, None, or a "
        "list or dict of them"
    )


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
    """The names that an assignment sets, each with the expression for it."""
    if isinstance(target, ast.Name):
        return [(target.id, value)]
    if isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        if len(parts) == len(target.elts):
            return [pair for each in zip(target.elts, parts, strict=True) for pair in _assigned(*each)]
    return []


def _annotated(annotation: ast.expr) -> tuple[type, ...] | None:
    """The types that an annotation allows, None where it says something that is not known here."""
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
