"""How a function wants to be called is told by its parameters."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mooring.handler.context import Context
from mooring.handler.errors import HandlerError
from mooring.handler.signatures import UserFunction

CONTEXT = Context(Path("/model"))
ARGUMENTS = ("input_object", "model")


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return run


class Callee:
    def __call__(self, a: Any, b: Any, context: Any) -> Any:
        return a, b, context

    def method(self, a: Any, b: Any) -> Any:
        return a, b, None


def by_keyword(a: Any, b: Any, *, context: Any) -> Any:
    return a, b, context


def anything(*arguments: Any, context: Any = None) -> Any:
    return (*arguments, context)


@pytest.mark.parametrize(
    ("function", "context"),
    [
        (lambda a, b: (a, b, None), None),
        (lambda a, b, c: (a, b, c), CONTEXT),
        (lambda a, b, c=None: (a, b, c), CONTEXT),
        (lambda a, b, context=None: (a, b, context), CONTEXT),
        (lambda context, a, b: (a, b, context), CONTEXT),
        (lambda a, context, b: (a, b, context), CONTEXT),
        (lambda *arguments: (*arguments, None), None),
        (by_keyword, CONTEXT),
        (anything, CONTEXT),
        (decorated(by_keyword), CONTEXT),
        (Callee(), CONTEXT),
        (Callee().method, None),
        (functools.partial(lambda x, a, b, context: (a, b, context), 0), CONTEXT),
    ],
)
def test_context_is_given_where_it_is_wanted(function: Callable[..., Any], context: Context | None) -> None:
    assert UserFunction.inspect("predict_fn", function, ARGUMENTS)(CONTEXT, 1, 2) == (1, 2, context)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda: None, "takes 0 arguments; expected predict_fn\\(input_object, model\\)"),
        (lambda a: None, "takes 1 arguments"),
        (lambda a, b, c=1, d=2: None, "takes 4 arguments"),
        (lambda a, b, c, context: None, "takes 4 arguments"),
    ],
)
def test_other_numbers_of_arguments_are_explained(function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(HandlerError, match=problem):
        UserFunction.inspect("predict_fn", function, ARGUMENTS)


def test_argument_that_nobody_gives_is_named() -> None:
    def function(a: Any, b: Any, *, device: Any) -> None: ...

    with pytest.raises(HandlerError, match="2 arguments and by name device"):
        UserFunction.inspect("predict_fn", function, ARGUMENTS)


def test_decorator_does_not_hide_that_a_function_is_asynchronous() -> None:
    async def plain(a: Any, b: Any) -> None: ...

    class Later:
        async def __call__(self, a: Any, b: Any) -> None: ...

    for function in (plain, decorated(plain), Later()):
        assert UserFunction.inspect("predict_fn", function, ARGUMENTS).is_async
    assert not UserFunction.inspect("predict_fn", by_keyword, ARGUMENTS).is_async
