"""What a configuration file may contain.

Before a parser sees a configuration that was read from a file, `check_config` compares it with the
types of the classes that it configures: a plain value where a plain value belongs, and a class
only by the name of a class that is known or that the user allowed.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from mnist_lightning.errors import UserError
from mnist_lightning.runs.class_names import CLASS_NAME, class_names, nested

Problems = Iterator[str]

# Bounds for files from elsewhere: more is possible, but only the user may ask for it.
MAX_ARGUMENT = 10_000  # of whole numbers in a class's arguments
MAX_ITEMS = 1_000
MAX_CLASSES = 32  # in a list: augmentations, callbacks
MAX_CHARS = 1_000
# A string that no parser takes for anything else, where something else is possible.
_INERT = re.compile(r"[\w:,/+-]*")


class Parameter(NamedTuple):
    """A parameter of a class or an option: its type, and its default (`...` if it has none)."""

    hint: Any
    default: Any


class Schema(NamedTuple):
    """What a configuration may contain.

    Attributes:
        sections: the parameters of the parts `model`, `data` and `trainer`; under "" those of
            the options beside them.
        components: the classes that a file may name, by class path.
        parameters: finds the parameters of a class.
        unbounded: classes whose whole numbers have no limit (schedules count steps).
    """

    sections: Mapping[str, Mapping[str, Parameter]]
    components: Mapping[str, type]
    parameters: Callable[[type], Mapping[str, Parameter]]
    unbounded: tuple[type, ...] = ()


class InvalidConfigError(UserError):
    """A configuration in a file holds something that no configuration has."""


def check_config(config: Any, schema: Schema, allowed: Iterable[str] = ()) -> None:
    """Compare a configuration from a file with its schema.

    Args:
        config: what the file holds.
        schema: what it may contain.
        allowed: the class paths that the user allows in addition.

    Raises:
        InvalidConfigError: it contains anything else; the first problem is named.
        UserError: it names a class that is not allowed.
    """
    checker = _Checker(schema, set(allowed))
    problem = next(checker.problems(config), None)
    if problem is not None:
        raise UserError(problem) if checker.foreign else InvalidConfigError(problem)


def foreign_classes(config: Any, schema: Schema, allowed: Iterable[str] = ()) -> list[str]:
    """List the classes that a configuration of the user's names and that need consent.

    Values of a wrong type are left to the parser, which explains them.
    """
    checker = _Checker(schema, set(allowed))
    whole = nested(config)
    for _ in checker.problems(whole):
        pass
    # Also where no class belongs: a parser may see more in an unknown key than this.
    known = schema.components.keys() | set(allowed)
    return [*checker.foreign, *sorted(class_names(whole) - known)]


def find_null(config: Mapping[str, Any], schema: Schema) -> str | None:
    """Find an option that is null and cannot be: jsonargparse accepts null for all in a file."""
    for section, parameters in schema.sections.items():
        values = config[section] if section else config
        if values is None:
            return section
        for name, parameter in parameters.items():
            may_be = any(_accepts(member, None) for member in _members(parameter.hint))
            if name in values and values[name] is None and not may_be:
                return f"{section}.{name}".lstrip(".")
    return None


def untrusted(name: str, where: str) -> str:
    """Return the message for a class that needs the user's consent."""
    return (
        f"{where} references the class {name}, which no file may use without your consent: name "
        "it in this command (such as --model.network CLASS), or add --trust"
    )


class _Checker:
    """Walks through a configuration beside the types of its schema."""

    def __init__(self, schema: Schema, allowed: set[str]) -> None:
        self.schema = schema
        self.allowed = allowed
        self.foreign: list[str] = []

    def problems(self, config: Any) -> Problems:
        """Yield what is wrong, option by option."""
        if not isinstance(config, dict):
            yield "the configuration is not a mapping of options"
            return
        sections = self.schema.sections
        for name, value in config.items():
            if name in sections and name:
                yield from self._section(name, value)
            elif name in sections[""]:
                yield from self._parameter(value, sections[""][name], name)
            else:
                yield f"unknown option {_shown(name)}"

    def _section(self, section: str, value: Any) -> Problems:
        if not isinstance(value, dict):
            yield f"{section}: expected a mapping of options, found {_shown(value)}"
            return
        parameters = self.schema.sections[section]
        for name, each in value.items():
            if name in parameters:
                yield from self._parameter(each, parameters[name], f"{section}.{name}")
            else:
                yield f"unknown option {section}.{_shown(name)}"

    def _parameter(self, value: Any, parameter: Parameter, where: str) -> Problems:
        if type(value) is type(parameter.default) and value == parameter.default:
            return
        yield from self._value(value, _members(parameter.hint), where)

    def _value(self, value: Any, members: Sequence[Any], where: str) -> Problems:
        """Yield why a value is of none of these types."""
        if isinstance(value, str):
            yield from self._string(value, members, where)
        elif isinstance(value, dict):
            yield from self._mapping(value, members, where)
        elif isinstance(value, list | tuple):
            yield from self._list(value, members, where)
        elif not any(_accepts(member, value) for member in members):
            yield f"{where}: invalid value {_shown(value)}"

    def _string(self, value: str, members: Sequence[Any], where: str) -> Problems:
        classes = _classes(members)
        if any(_accepts(member, value) for member in members if get_origin(member) is Literal):
            return
        plain = any(member in (str, Path, timedelta) for member in members)
        if classes and self._component(value, classes) is not None:
            return
        others = classes or any(get_origin(member) in (list, dict) for member in members)
        if plain and len(value) <= MAX_CHARS and (not others or _INERT.fullmatch(value)):
            return
        if Any in members and len(value) <= MAX_CHARS and _INERT.fullmatch(value):
            return
        if classes and CLASS_NAME.fullmatch(value):
            yield self._refused(value, where)
        else:
            yield f"{where}: invalid value {_shown(value)}"

    def _list(self, value: Sequence[Any], members: Sequence[Any], where: str) -> Problems:
        inner = [hint for member in members for item in _items(member) for hint in _members(item)]
        if not inner or len(value) > (MAX_CLASSES if _classes(inner) else MAX_ITEMS):
            yield f"{where}: invalid list of {len(value)} items"
            return
        for place, each in enumerate(value):
            yield from self._value(each, inner, f"{where}[{place}]")

    def _mapping(self, value: dict[Any, Any], members: Sequence[Any], where: str) -> Problems:
        classes = _classes(members)
        if classes and "class_path" in value:
            yield from self._class(value, classes, where)
            return
        pairs = [get_args(member) for member in members if get_origin(member) in (dict, Mapping)]
        if not pairs or len(value) > MAX_ITEMS:
            yield f"{where}: invalid mapping"
            return
        keys, values = (
            [hint for each in hints for hint in _members(each)]
            for hints in zip(*pairs, strict=True)
        )
        for name, each in value.items():
            # A key that is a number is a string in JSON, and after it in YAML.
            numeric = isinstance(name, str) and name.isascii() and name.isdecimal()
            yield from self._value(int(name[:20]) if numeric and int in keys else name, keys, where)
            yield from self._value(each, values, f"{where}.{_shown(name)}")

    def _class(self, value: dict[str, Any], bases: tuple[type, ...], where: str) -> Problems:
        path, arguments = value["class_path"], value.get("init_args") or {}
        extra = value.keys() - {"class_path", "init_args"}
        component = self._component(path, bases) if isinstance(path, str) else None
        if component is None:
            yield self._refused(path, where) if isinstance(path, str) else f"{where}: no class path"
        elif not isinstance(arguments, dict):
            yield f"{where}: the arguments of {path} are not a mapping"
        elif component is _FOREIGN:
            yield from self._nested_classes([arguments, value.get("dict_kwargs")], where)
        elif extra:
            yield f"{where}: unknown key {_shown(extra.pop())}"
        else:
            parameters = self.schema.parameters(component)
            for name, each in arguments.items():
                if name not in parameters:
                    yield f"{where}: {path} has no argument {_shown(name)}"
                    continue
                inside = f"{where}.{name}"
                yield from self._parameter(each, parameters[name], inside)
                if not issubclass(component, self.schema.unbounded) and _exceeds(each):
                    yield f"{inside}: {_shown(each)} exceeds the limit of {MAX_ARGUMENT:,}"

    def _nested_classes(self, value: Any, where: str) -> Problems:
        """Yield the classes in the arguments of a foreign class that are not allowed."""
        if isinstance(value, dict):
            path = value.get("class_path")
            if isinstance(path, str) and self._component(path, (object,)) is None:
                yield self._refused(path, where)
            value = list(value.values())
        for each in value if isinstance(value, list) else ():
            yield from self._nested_classes(each, where)

    def _component(self, name: str, bases: tuple[type, ...]) -> type | None:
        """Find the class of a name: a known one, `_FOREIGN` if it is allowed, None if not."""
        known = self.schema.components
        if name in known:
            return known[name] if issubclass(known[name], bases) else None
        for cls in known.values():
            if cls.__name__ == name and issubclass(cls, bases):
                return cls
        named = {each for path in self.allowed for each in (path, path.rpartition(".")[2])}
        return _FOREIGN if name in named else None

    def _refused(self, name: str, where: str) -> str:
        self.foreign.append(name)
        return untrusted(_printable(name), where)


class _FOREIGN:
    """Stands for a class that the user allowed, and that is not imported to check a file."""


def _members(hint: Any) -> list[Any]:
    """List the types of a union; of another type itself."""
    if get_origin(hint) in (Union, UnionType):
        return [member for each in get_args(hint) for member in _members(each)]
    return [Any if hint is inspect.Parameter.empty else hint]


def _classes(members: Sequence[Any]) -> tuple[type, ...]:
    """Return the classes among types that are given by name: of an instance or of a factory."""
    found: list[type] = []
    for member in members:
        if get_origin(member) is Callable and get_args(member):
            found += _classes(_members(get_args(member)[-1]))
        elif isinstance(member, type) and get_origin(member) is None and member not in _PLAIN:
            found.append(member)
    return tuple(found)


_PLAIN = (bool, int, float, str, NoneType, Path, timedelta, list, dict, tuple)


def _items(member: Any) -> list[Any]:
    """Return the types of the items of a list type; nothing of another type."""
    origin, arguments = get_origin(member), get_args(member)
    if member is Any or member in (list, tuple):
        return [Any]
    if origin is None or not isinstance(origin, type) or origin is dict:
        return []
    if not issubclass(origin, Iterable) or issubclass(origin, Mapping):
        return []
    return [each for each in arguments if each is not ...]


def _accepts(member: Any, value: Any) -> bool:
    """Tell whether a plain value is of a type."""
    if get_origin(member) is Literal:
        return any(value == each and type(value) is type(each) for each in get_args(member))
    if isinstance(value, bool) or value is None:
        return member in (type(value), Any) or (member is None and value is None)
    if isinstance(value, int):
        return abs(value) < 2**63 and (member in (int, float, Any) or _is_restricted(member, int))
    if isinstance(value, float):
        return math.isfinite(value) and (member in (float, Any) or _is_restricted(member, float))
    return False


def _is_restricted(member: Any, base: type) -> bool:
    """Tell whether a type is a number with bounds, such as jsonargparse's PositiveInt."""
    return isinstance(member, type) and issubclass(member, base)


def _exceeds(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_exceeds, value))
    return isinstance(value, int | float) and abs(value) > MAX_ARGUMENT


def _shown(value: Any) -> str:
    """Show a value from a file on one short line."""
    return f"'{_printable(value)}'" if isinstance(value, str) else _printable(repr(value))


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:80])
