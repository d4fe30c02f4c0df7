"""Tables of "module:attribute" strings, and every table codegym ships."""

import sys
from typing import Protocol

import pytest

from codegym import (
    JUDGES,
    REWARD_SCHEMES,
    TASK_SOURCES,
    CodegymError,
    MissingExtraError,
    UnknownNameError,
    make_judge,
)
from codegym.rewards.scoring import LINE_SCORERS
from codegym.table import check_name, check_object, check_options, resolve

TABLE = {
    "sqrt": "math:sqrt",
    "extra": "extra_module:thing",
    "broken": "codegym.no_such_module:thing",
}


def test_a_name_resolves_to_its_attribute():
    import math

    assert resolve(TABLE, "sqrt", "function") is math.sqrt


def test_an_unknown_name_lists_the_choices_and_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        resolve(TABLE, "sqrd", "function")
    assert (
        str(caught.value) == "unknown function 'sqrd' (did you mean 'sqrt'?); choose from broken, extra, sqrt"
    )
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CodegymError)


def test_a_name_like_no_other_has_no_hint():
    with pytest.raises(UnknownNameError, match=r"unknown thing '\?\?'; choose from a, b"):
        check_name("??", ["b", "a"], "thing")


class Speaks(Protocol):
    def speak(self): ...

    def listen(self): ...


class Dog:
    def speak(self):
        return "woof"

    def listen(self):
        return None


def test_an_object_in_the_place_of_a_name_needs_what_is_asked_for():
    check_object(Dog(), Speaks, "animal")
    for wrong in (None, dict, {}, Dog, object()):
        with pytest.raises(TypeError, match="animal must be a Speaks, an object with speak and listen, got"):
            check_object(wrong, Speaks, "animal")


@pytest.mark.parametrize("function", [lambda path, *, limit=0: 0, lambda path, limit=0, **more: 0])
def test_options_are_checked_unless_a_function_takes_any(function):
    check_options(function, ["path", "limit"], "option")
    if "more" in function.__code__.co_varnames:
        check_options(function, ["speed"], "option")
    else:
        with pytest.raises(UnknownNameError, match="unknown option 'speed'; choose from limit, path"):
            check_options(function, ["speed"], "option")


@pytest.mark.parametrize("name", [None, 3, ""])
def test_names_that_are_no_names_are_unknown(name):
    with pytest.raises(UnknownNameError, match="choose from"):
        check_name(name, TABLE, "function")


def test_a_missing_package_names_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "extra_module.py").write_text("import not_installed_anywhere.sub\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MissingExtraError, match="'extra' needs the package 'not_installed_anywhere"
    ) as caught:
        resolve(TABLE, "extra", "sampler")
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize("name", ["docker", "ray"])
def test_a_judge_without_its_extra_says_what_it_needs(name, monkeypatch):
    monkeypatch.delitem(sys.modules, f"codegym.judge.{name}", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtraError, match=f"judge '{name}' needs the package '{name}', which is not installed"
    ):
        make_judge(name)


def test_our_own_missing_module_is_not_blamed_on_an_extra():
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        resolve(TABLE, "broken", "sampler")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize(
    ("table", "name"),
    [(table, name) for table in (JUDGES, REWARD_SCHEMES, TASK_SOURCES, LINE_SCORERS) for name in table],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_entry_of_every_table_resolves(table, name):
    try:
        assert callable(resolve(table, name, "entry"))
    except MissingExtraError as error:
        pytest.skip(str(error))
