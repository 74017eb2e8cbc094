"""What a configuration file may contain.

Before a configuration from a file is parsed, `check_config` compares it with the types of the
classes that it configures. Values must have the expected plain types. Class names must be known or
allowed by the user.
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
from mnist_lightning.runs.class_names import CLASS_NAME, class_names, nest_options

Problems = Iterator[str]

# Limits for files from elsewhere. The command line has no such limits.
MAX_ARGUMENT = 10_000  # for numbers in the arguments of a class
MAX_ITEMS = 1_000
MAX_CLASSES = 32  # in a list: augmentations, callbacks
MAX_CHARS = 1_000
# A string that a parser cannot read as another type.
_INERT = re.compile(r"[\w:,/+-]*")


class Parameter(NamedTuple):
    """A parameter of a class or an option: its type, and its default (`...` if it has none)."""

    hint: Any
    default: Any


class Schema(NamedTuple):
    """What a configuration may contain.

    Attributes:
        sections: the parameters of the sections `model`, `data` and `trainer`; under "" those of
            the top-level options.
        components: the classes that a file may name, by class path.
        parameters: returns the parameters of a class.
        unbounded: classes whose numbers have no limit (schedules count steps).
    """

    sections: Mapping[str, Mapping[str, Parameter]]
    components: Mapping[str, type]
    parameters: Callable[[type], Mapping[str, Parameter]]
    unbounded: tuple[type, ...] = ()


class InvalidConfigError(UserError):
    """A configuration in a file contains invalid values."""


def check_config(config: Any, schema: Schema, allowed: Iterable[str] = ()) -> None:
    """Compare a configuration from a file with its schema.

    Args:
        config: the content of the file.
        schema: the valid content.
        allowed: additional class paths that the user allows.

    Raises:
        InvalidConfigError: it has invalid content; the message contains the first problem.
        UserError: it names a class that is not allowed.
    """
    checker = _Checker(schema, set(allowed))
    problem = next(checker.problems(config), None)
    if problem is not None:
        raise UserError(problem) if checker.foreign else InvalidConfigError(problem)


def foreign_classes(config: Any, schema: Schema, allowed: Iterable[str] = ()) -> list[str]:
    """List the classes in a user's configuration that need consent.

    Ignore values of a wrong type: the parser reports them.
    """
    checker = _Checker(schema, set(allowed))
    config = nest_options(config)
    for _ in checker.problems(config):
        pass
    # Also in other places: a parser may find a class under an unknown key.
    known = schema.components.keys() | set(allowed)
    return [*checker.foreign, *sorted(class_names(config) - known)]


def find_null(config: Mapping[str, Any], schema: Schema) -> str | None:
    """Return an option with an invalid null: jsonargparse accepts null for all options in files."""
    for section, parameters in schema.sections.items():
        values = config[section] if section else config
        if values is None:
            return section
        for name, parameter in parameters.items():
            optional = any(_accepts(member, None) for member in _members(parameter.hint))
            if name in values and values[name] is None and not optional:
                return f"{section}.{name}".lstrip(".")
    return None


def untrusted_message(name: str, where: str) -> str:
    """Return the message for a class that needs the user's consent."""
    return (
        f"{where} references the class {name}, which needs your consent: name it in this command "
        "(such as --model.network CLASS), or add --trust"
    )


class _Checker:
    """Walks through a configuration together with the types of its schema."""

    def __init__(self, schema: Schema, allowed: set[str]) -> None:
        self.schema = schema
        self.allowed = allowed
        self.foreign: list[str] = []

    def problems(self, config: Any) -> Problems:
        """Yield the problems of each option."""
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
                yield f"unknown option {_format(name)}"

    def _section(self, section: str, value: Any) -> Problems:
        if not isinstance(value, dict):
            yield f"{section}: expected a mapping of options, found {_format(value)}"
            return
        parameters = self.schema.sections[section]
        for name, item in value.items():
            if name in parameters:
                yield from self._parameter(item, parameters[name], f"{section}.{name}")
            else:
                yield f"unknown option {section}.{_format(name)}"

    def _parameter(self, value: Any, parameter: Parameter, where: str) -> Problems:
        if type(value) is type(parameter.default) and value == parameter.default:
            return
        yield from self._value(value, _members(parameter.hint), where)

    def _value(self, value: Any, members: Sequence[Any], where: str) -> Problems:
        """Yield a problem if a value has none of these types."""
        if isinstance(value, str):
            yield from self._string(value, members, where)
        elif isinstance(value, dict):
            yield from self._mapping(value, members, where)
        elif isinstance(value, list | tuple):
            yield from self._list(value, members, where)
        elif not any(_accepts(member, value) for member in members):
            yield f"{where}: invalid value {_format(value)}"

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
            yield self._refuse(value, where)
        else:
            yield f"{where}: invalid value {_format(value)}"

    def _list(self, value: Sequence[Any], members: Sequence[Any], where: str) -> Problems:
        inner = [hint for member in members for item in _items(member) for hint in _members(item)]
        if not inner or len(value) > (MAX_CLASSES if _classes(inner) else MAX_ITEMS):
            yield f"{where}: invalid list of {len(value)} items"
            return
        for index, item in enumerate(value):
            yield from self._value(item, inner, f"{where}[{index}]")

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
            [member for hint in hints for member in _members(hint)]
            for hints in zip(*pairs, strict=True)
        )
        for name, item in value.items():
            # JSON stores number keys as strings; so does YAML written from it.
            numeric = isinstance(name, str) and name.isascii() and name.isdecimal()
            yield from self._value(int(name[:20]) if numeric and int in keys else name, keys, where)
            yield from self._value(item, values, f"{where}.{_format(name)}")

    def _class(self, value: dict[str, Any], bases: tuple[type, ...], where: str) -> Problems:
        path, arguments = value["class_path"], value.get("init_args") or {}
        extra = value.keys() - {"class_path", "init_args"}
        component = self._component(path, bases) if isinstance(path, str) else None
        if component is None:
            yield self._refuse(path, where) if isinstance(path, str) else f"{where}: no class path"
        elif not isinstance(arguments, dict):
            yield f"{where}: the arguments of {path} are not a mapping"
        elif component is _AllowedClass:
            yield from self._nested_classes([arguments, value.get("dict_kwargs")], where)
        elif extra:
            yield f"{where}: unknown key {_format(extra.pop())}"
        else:
            parameters = self.schema.parameters(component)
            for name, item in arguments.items():
                if name not in parameters:
                    yield f"{where}: {path} has no argument {_format(name)}"
                    continue
                inside = f"{where}.{name}"
                yield from self._parameter(item, parameters[name], inside)
                if not issubclass(component, self.schema.unbounded) and _exceeds(item):
                    yield f"{inside}: {_format(item)} exceeds the limit of {MAX_ARGUMENT:,}"

    def _nested_classes(self, value: Any, where: str) -> Problems:
        """Yield the forbidden classes in the arguments of a foreign class."""
        if isinstance(value, dict):
            path = value.get("class_path")
            if isinstance(path, str) and self._component(path, (object,)) is None:
                yield self._refuse(path, where)
            value = list(value.values())
        for item in value if isinstance(value, list) else ():
            yield from self._nested_classes(item, where)

    def _component(self, name: str, bases: tuple[type, ...]) -> type | None:
        """Return the known class of a name, `_AllowedClass` if it is allowed, otherwise None."""
        known = self.schema.components
        if name in known:
            return known[name] if issubclass(known[name], bases) else None
        for cls in known.values():
            if cls.__name__ == name and issubclass(cls, bases):
                return cls
        names = {name for path in self.allowed for name in (path, path.rpartition(".")[2])}
        return _AllowedClass if name in names else None

    def _refuse(self, name: str, where: str) -> str:
        self.foreign.append(name)
        return untrusted_message(_printable(name), where)


class _AllowedClass:
    """Represents an allowed class, which is not imported to check a file."""


def _members(hint: Any) -> list[Any]:
    """Return the types of a union; for another type, the type itself."""
    if get_origin(hint) in (Union, UnionType):
        return [member for part in get_args(hint) for member in _members(part)]
    return [Any if hint is inspect.Parameter.empty else hint]


def _classes(members: Sequence[Any]) -> tuple[type, ...]:
    """Return the classes among types that a name can select: of an instance or a factory."""
    classes: list[type] = []
    for member in members:
        if get_origin(member) is Callable and get_args(member):
            classes += _classes(_members(get_args(member)[-1]))
        elif isinstance(member, type) and get_origin(member) is None and member not in _PLAIN:
            classes.append(member)
    return tuple(classes)


_PLAIN = (bool, int, float, str, NoneType, Path, timedelta, list, dict, tuple)


def _items(member: Any) -> list[Any]:
    """Return the item types of a list type; for another type, nothing."""
    origin, arguments = get_origin(member), get_args(member)
    if member is Any or member in (list, tuple):
        return [Any]
    if origin is None or not isinstance(origin, type) or origin is dict:
        return []
    if not issubclass(origin, Iterable) or issubclass(origin, Mapping):
        return []
    return [argument for argument in arguments if argument is not ...]


def _accepts(member: Any, value: Any) -> bool:
    """Return whether a plain value has a type."""
    if get_origin(member) is Literal:
        return any(value == item and type(value) is type(item) for item in get_args(member))
    if isinstance(value, bool) or value is None:
        return member in (type(value), Any) or (member is None and value is None)
    if isinstance(value, int):
        return abs(value) < 2**63 and (member in (int, float, Any) or _is_restricted(member, int))
    if isinstance(value, float):
        return math.isfinite(value) and (member in (float, Any) or _is_restricted(member, float))
    return False


def _is_restricted(member: Any, base: type) -> bool:
    """Return whether a type is a number with bounds, such as jsonargparse's PositiveInt."""
    return isinstance(member, type) and issubclass(member, base)


def _exceeds(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_exceeds, value))
    return isinstance(value, int | float) and abs(value) > MAX_ARGUMENT


def _format(value: Any) -> str:
    """Format a value from a file as one short line."""
    return f"'{_printable(value)}'" if isinstance(value, str) else _printable(repr(value))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:80])
