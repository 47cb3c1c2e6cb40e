"""Says in plain words why a document is not what its class says: where, what stands there, what should."""

import math
import re
import reprlib
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

HUGE = 10**24
_STEPS = re.compile(r"\.([\w-]+)|\[(\d+|\.\.\.)\]")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`")
_OF_MSGSPEC = ("Expected", "Invalid", "Number", "Integer")  # how its own messages begin
_WORDS = {
    inspect.NoneType: "null",
    inspect.BoolType: "true or false",
    inspect.DateTimeType: "a time such as 2026-01-31T12:00:00+00:00",
    inspect.BytesType: "bytes in base64",
}
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60


def mistake(problem: msgspec.ValidationError, value: object, kind: object) -> str:
    """What `problem` says of `value`, which was to be of the type `kind`: "rows[0].macs is -1, not ..."."""
    said, _, path = str(problem).partition(" - at `")
    place = ""
    for name, index in _STEPS.findall(path):
        value, kind, step = _entered(value, _bare(kind), name or index)
        place += step
    at = place.removeprefix(".")
    if path.startswith("key"):
        return f"{at or 'it'} has a key that is no text"
    if field := _FIELD.fullmatch(said):
        whole = f"{place}.{field[2]}".removeprefix(".")
        known = ", ".join(_fields(_bare(kind)))
        return (
            f"{whole} is missing"
            if field[1] == "missing required"
            else f"{whole} is unknown, not one of {known}"
        )
    if not said.startswith(_OF_MSGSPEC):
        return f"{at}: {said}" if at else said
    return f"{at} is {shown(value)}, not {_described(inspect.type_info(kind))}"


def shown(value: object) -> str:
    """A value in few characters."""
    match value:
        case dict() | list():
            return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
        case float() if not math.isfinite(value):
            return "not a number" if math.isnan(value) else "infinite"
        case int() if abs(value) > HUGE:
            return "huge"
        case _:
            return _repr.repr(value)


def _entered(value: Any, kind: Any, step: str) -> tuple[Any, Any, str]:
    """(what stands at a step of the path, its type, the step in words).

    Case 1: a field. Case 2: an entry of a mapping, which msgspec does not name: the first that is refused.
    Case 3: an item of a list.
    """
    types = get_args(kind)
    if step == "...":  # Case 2
        name = next(name for name, each in value.items() if _refused(each, types[1]))
        return value[name], types[1], f".{name}"
    if step.isdecimal():  # Case 3
        fixed = get_origin(kind) is tuple and types[-1] is not Ellipsis
        return list(value)[int(step)], types[int(step) if fixed else 0], f"[{step}]"
    return value[step], _fields(kind)[step], f".{step}"  # Case 1


def _fields(kind: Any) -> dict[str, Any]:
    """The types of a class's fields, by their names in the document."""
    hints, info = get_type_hints(kind, include_extras=True), inspect.type_info(kind)
    assert isinstance(info, inspect.StructType | inspect.DataclassType)
    return {field.encode_name: hints[field.name] for field in info.fields}


def _refused(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return True
    return False


def _bare(kind: Any) -> Any:
    """A type without its bounds, and without null."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not NoneType)
    return kind


def _described(kind: inspect.Type) -> str:
    match kind:
        case inspect.UnionType(types=types):
            return " or ".join(map(_described, types))
        case inspect.LiteralType(values=values):
            return f"{'one of ' * (len(values) > 1)}{', '.join(map(str, values))}"
        case inspect.IntType(ge=low, le=high):
            return f"a whole number{_bounds(low, high)}"
        case inspect.FloatType(ge=low, gt=above, le=high):
            return f"a number{_bounds(low, high)}" if above is None else f"a number above {above:g}"
        case inspect.StrType(pattern=str(pattern)):
            return f"a text that matches {pattern}"
        case inspect.StrType(max_length=longest):
            return f"a text of at most {longest} characters" if longest else "a text"
        case inspect.TupleType(item_types=items):
            return f"a list of {len(items)}"
        case inspect.VarTupleType(min_length=least):
            return f"a list of {least} or more" if least else "a list"
        case inspect.DictType(min_length=least):
            return f"an object of {least} or more" if least else "an object"
    return _WORDS.get(type(kind), "an object")


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low:.10g} to {high:.10g}"
    return "" if low is None else f" of at least {low:.10g}"
