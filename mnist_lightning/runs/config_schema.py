"""What a configuration file may contain.

Before a configuration from a file is parsed, `check_config` compares it with the types of the
classes that it configures. Values must have the expected plain types. Class names must be known or
allowed by the user.
"""

import math
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from mnist_lightning.errors import UserError
from mnist_lightning.runs.class_names import CLASS_NAME, class_names, nest_options, parts
from mnist_lightning.text import printable

# Limits for files from elsewhere. The command line has no such limits.
MAX_ARGUMENT = 10_000  # for numbers in the arguments of a class
MAX_ITEMS = 1_000
MAX_COMPONENTS = 32  # in a list: augmentations, callbacks
MAX_CHARS = 1_000
# A string that a parser cannot read as another type.
_INERT = re.compile(r"[\w:,/+-]*")


class Parameter(NamedTuple):
    """A parameter or an option: its type, its default (`...` if it has none) and its help."""

    hint: Any
    default: Any
    help: str = ""


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


def check_config(config: Any, schema: Schema, allowed: Collection[str] = ()) -> None:
    """Compare a configuration from a file with its schema.

    Args:
        config: the content of the file.
        schema: the valid content.
        allowed: additional class paths that the user allows.

    Raises:
        InvalidConfigError: it has invalid content; the message contains the first problem.
        UserError: it names a class that is not allowed.
    """
    checker = _Checker(schema, allowed)
    checker.check(config)
    if checker.problems:
        raise checker.problems[0]


def foreign_classes(config: Any, schema: Schema, allowed: Collection[str] = ()) -> list[str]:
    """List the classes in a user's configuration that need consent.

    Ignore values of a wrong type: the parser reports them.
    """
    checker = _Checker(schema, allowed)
    config = nest_options(config)
    checker.check(config)
    # Also in other places: a parser may find a class under an unknown key.
    known = {*schema.components, *allowed}
    return [*checker.foreign, *sorted(class_names(config) - known)]


def find_null(config: Mapping[str, Any], schema: Schema) -> str | None:
    """Return an option with an invalid null: jsonargparse accepts null for all options in files."""
    for section, parameters in schema.sections.items():
        values = config[section] if section else config
        if values is None:
            return section
        for name, parameter in parameters.items():
            optional = any(_accepts(member, None) for member in _members(parameter.hint))
            if values.get(name, ...) is None and not optional:
                return f"{section}.{name}".lstrip(".")
    return None


def untrusted_message(name: str, where: str) -> str:
    """Return the message for a class that needs the user's consent."""
    return (
        f"{where} references the class {name}, which needs your consent: give it in this command "
        "(such as --model.network CLASS), or add --trust"
    )


class _Checker:
    """Compares a configuration with its schema; collects the problems and the foreign classes."""

    def __init__(self, schema: Schema, allowed: Iterable[str]) -> None:
        self.schema = schema
        self.allowed = {name for path in allowed for name in (path, path.rpartition(".")[2])}
        self.problems: list[UserError] = []
        self.foreign: list[str] = []

    def check(self, config: Any) -> None:
        """Check each option."""
        if not isinstance(config, dict):
            self._report("the configuration is not a mapping of options")
            return
        for name, value in config.items():
            if name and name in self.schema.sections:
                self._section(value, name)
            else:
                self._section({name: value}, "")

    def _report(self, problem: str) -> None:
        self.problems.append(InvalidConfigError(problem))

    def _refuse(self, name: str, where: str) -> None:
        self.foreign.append(name)
        self.problems.append(UserError(untrusted_message(printable(name[:80]), where)))

    def _section(self, options: Any, section: str) -> None:
        if not isinstance(options, dict):
            self._report(f"{section}: expected a mapping of options, found {_format(options)}")
            return
        parameters, prefix = self.schema.sections[section], f"{section}." if section else ""
        for name, value in options.items():
            if name in parameters:
                self._parameter(value, parameters[name], f"{prefix}{name}")
            else:
                self._report(f"unknown option {prefix}{_format(name)}")

    def _parameter(self, value: Any, parameter: Parameter, where: str) -> None:
        if type(value) is not type(parameter.default) or value != parameter.default:
            self._value(value, _members(parameter.hint), where)

    def _value(self, value: Any, members: Sequence[Any], where: str) -> None:
        """Report a value that has none of these types."""
        if isinstance(value, str):
            self._string(value, members, where)
        elif isinstance(value, dict):
            self._mapping(value, members, where)
        elif isinstance(value, list | tuple):
            self._list(value, members, where)
        elif not any(_accepts(member, value) for member in members):
            self._report(f"{where}: invalid value {_format(value)}")

    def _string(self, value: str, members: Sequence[Any], where: str) -> None:
        classes = _classes(members)
        is_class = bool(classes) and self._component(value, classes) is not None
        if is_class or any(_accepts(member, value) for member in members):
            return
        plain = any(member in (str, Path, timedelta) for member in members)
        others = classes or any(get_origin(member) in (list, dict) for member in members)
        inert = (plain or Any in members) and _INERT.fullmatch(value)
        if len(value) <= MAX_CHARS and (inert or (plain and not others)):
            return
        if classes and CLASS_NAME.fullmatch(value):
            self._refuse(value, where)
        else:
            self._report(f"{where}: invalid value {_format(value)}")

    def _list(self, value: Sequence[Any], members: Sequence[Any], where: str) -> None:
        inner = _members(*(item for member in members for item in _items(member)))
        if not inner or len(value) > (MAX_COMPONENTS if _classes(inner) else MAX_ITEMS):
            self._report(f"{where}: invalid list of {len(value)} items")
            return
        for index, item in enumerate(value):
            self._value(item, inner, f"{where}[{index}]")

    def _mapping(self, value: dict[Any, Any], members: Sequence[Any], where: str) -> None:
        classes = _classes(members)
        pairs = [get_args(member) for member in members if get_origin(member) in (dict, Mapping)]
        if classes and "class_path" in value:
            self._class(value, classes, where)
        elif not pairs or len(value) > MAX_ITEMS:
            self._report(f"{where}: invalid mapping")
        else:
            keys, values = (_members(*hints) for hints in zip(*pairs, strict=True))
            for name, item in value.items():
                # JSON stores number keys as strings; so does YAML written from it.
                numeric = isinstance(name, str) and name.isascii() and name.isdecimal()
                self._value(int(name[:20]) if numeric and int in keys else name, keys, where)
                self._value(item, values, f"{where}.{_format(name)}")

    def _class(self, value: dict[str, Any], bases: tuple[type, ...], where: str) -> None:
        path, arguments = value["class_path"], value.get("init_args") or {}
        extra = value.keys() - {"class_path", "init_args"}
        if not isinstance(path, str):
            self._report(f"{where}: class_path is not a string")
        elif (component := self._component(path, bases)) is None:
            self._refuse(path, where)
        elif not isinstance(arguments, dict):
            self._report(f"{where}: the arguments of {path} are not a mapping")
        elif component is object:
            self._nested_classes([arguments, value.get("dict_kwargs")], where)
        elif extra:
            self._report(f"{where}: unknown key {_format(extra.pop())}")
        else:
            parameters = self.schema.parameters(component)
            for name, item in arguments.items():
                if name not in parameters:
                    self._report(f"{where}: {path} has no argument {_format(name)}")
                    continue
                place = f"{where}.{name}"
                self._parameter(item, parameters[name], place)
                if not issubclass(component, self.schema.unbounded) and _exceeds(item):
                    self._report(f"{place}: {_format(item)} exceeds the limit of {MAX_ARGUMENT:,}")

    def _nested_classes(self, value: Any, where: str) -> None:
        """Refuse the forbidden classes in the arguments of a foreign class."""
        path = value.get("class_path") if isinstance(value, dict) else None
        if isinstance(path, str) and self._component(path, (object,)) is None:
            self._refuse(path, where)
        for item in parts(value):
            self._nested_classes(item, where)

    def _component(self, name: str, bases: tuple[type, ...]) -> type | None:
        """Return the known class of a name; `object` for an allowed one, which is not imported."""
        known = self.schema.components
        for path, cls in known.items():
            if name in (path, cls.__name__) and issubclass(cls, bases):
                return cls
        return object if name in self.allowed and name not in known else None


def _members(*hints: Any) -> list[Any]:
    """Return these types; for a union, its members."""
    members: list[Any] = []
    for hint in hints:
        is_union = get_origin(hint) in (Union, UnionType)
        members += _members(*get_args(hint)) if is_union else [hint]
    return members


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
    if member in (Any, list, tuple):
        return [Any]
    origin = get_origin(member)
    is_list = isinstance(origin, type) and issubclass(origin, Iterable)
    if not is_list or issubclass(origin, Mapping):
        return []
    return [argument for argument in get_args(member) if argument is not ...]


def _accepts(member: Any, value: Any) -> bool:
    """Return whether a plain value has a type."""
    if get_origin(member) is Literal:
        return any(value == item and type(value) is type(item) for item in get_args(member))
    if isinstance(value, bool | None):
        return member in (type(value), Any)
    bases = member.__mro__ if isinstance(member, type) else ()  # of jsonargparse's PositiveInt: int
    if isinstance(value, int):
        return abs(value) < 2**63 and (member in (float, Any) or int in bases)
    if isinstance(value, float):
        return math.isfinite(value) and (member is Any or float in bases)
    return False


def _exceeds(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_exceeds, value))
    return isinstance(value, int | float) and abs(value) > MAX_ARGUMENT


def _format(value: Any) -> str:
    """Format a value from a file as one short line."""
    text = f"'{value[:80]}'" if isinstance(value, str) else reprlib.repr(value)[:80]
    return printable(text)
