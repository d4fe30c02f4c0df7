"""Tables of `"name": "module:attribute"` strings: how codegym is extended without registries."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from codegym.errors import MissingExtraError, UnknownNameError


def check_name(name: str, choices: Mapping[str, Any] | list[str] | tuple[str, ...], kind: str) -> None:
    """Raise `UnknownNameError` listing `choices` unless `name` is one of them."""
    if name not in choices:
        close = get_close_matches(str(name), list(choices), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UnknownNameError(
            f"unknown {kind} {name!r}{hint}; choose from {', '.join(sorted(choices)) or '(none)'}"
        )


def check_options(function: Callable[..., Any], options: Iterable[str], kind: str) -> None:
    """Raise `UnknownNameError` listing the keyword options of `function` unless it takes all of `options`."""
    parameters = signature(function).parameters.values()
    if all(parameter.kind is not Parameter.VAR_KEYWORD for parameter in parameters):
        named = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        known = [parameter.name for parameter in parameters if parameter.kind in named]
        for option in options:
            check_name(option, known, kind)


def check_object(value: object, protocol: type, name: str) -> None:
    """Raise `TypeError` unless `value`, given in the place of a name, has what `protocol` asks for."""
    asked = [attribute for attribute in vars(protocol) if not attribute.startswith("_")]
    if isinstance(value, type) or not all(hasattr(value, attribute) for attribute in asked):
        raise TypeError(
            f"{name} must be a {protocol.__name__}, an object with {' and '.join(asked)}, got {value!r}"
        )


def resolve(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Import and return what `name` stands for.

    Args:
        table: Names to `"module:attribute"` strings.
        name: The entry wanted.
        kind: What the table holds, for the error message ("judge", "task source").

    Raises:
        UnknownNameError: If `name` is not in the table; the message lists the choices.
        MissingExtraError: If the entry's module needs a package that is not installed; names it.
    """
    check_name(name, table, kind)
    module_name, _, attribute = table[name].partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == module_name.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{kind} {name!r} needs the package {error.name!r}, which is not installed"
        ) from error
    return getattr(module, attribute)
