"""How a user's function wants to be called: with or without the context, and where the context goes."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .context import Context
from .errors import HandlerError
from .user_module import user_code

CONTEXT = "context"
BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's module, and how it takes the context: at a place, by its name, or not at all."""

    name: str
    call: Callable[..., Any]
    place: int | str | None = None

    @classmethod
    def inspect(cls, name: str, call: Callable[..., Any], arguments: tuple[str, ...]) -> "UserFunction":
        """Return how a function is to be called. Raises `HandlerError` for a signature that cannot be."""
        return cls(name, call, _place(name, call, arguments))

    @property
    def is_async(self) -> bool:
        """Whether calling it gives something to be awaited, or iterated asynchronously; decorators may hide that."""
        call = inspect.unwrap(self.call)
        return any(
            inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
            for each in (call, getattr(call, "__call__", None))  # noqa: B004 - of an object that can be called
        )

    def __call__(self, context: Context | list[Context], *arguments: Any) -> Any:
        """Call it. What it raises becomes a `HandlerError` without the details, which go to the log."""
        with user_code(f"The model's {self.name}"):
            if isinstance(self.place, int):
                return self.call(*arguments[: self.place], context, *arguments[self.place :])
            if self.place is not None:
                return self.call(*arguments, **{self.place: context})
            return self.call(*arguments)


def _place(name: str, function: Callable[..., Any], arguments: tuple[str, ...]) -> int | str | None:
    """Decide by number of positional parameters, as the earlier toolkits did, unless one is called `context`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # of a function in C
        return None
    positional = [parameter for parameter in parameters if parameter.kind in BY_PLACE]
    named = next((parameter for parameter in parameters if parameter.name == CONTEXT), None)
    others = [parameter for parameter in positional if parameter is not named]
    needed = [each for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    takes_any = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    expected = len(arguments)
    if all(parameter is named for parameter in needed):
        if named is not None and (len(others) == expected or (takes_any and len(others) < expected)):
            index = positional.index(named) if named in positional else expected + 1
            return index if index <= expected else CONTEXT
        if named is None and len(others) == expected + 1:
            return expected
        if named is None and (len(others) == expected or (takes_any and len(others) < expected)):
            return None
    wanted = ", ".join(arguments)
    raise HandlerError(
        f"{name} takes {_words(positional, needed)}; expected {name}({wanted}) or {name}({wanted}, context)."
    )


def _words(positional: list[inspect.Parameter], needed: list[inspect.Parameter]) -> str:
    by_name = f" and by name {', '.join(parameter.name for parameter in needed)}" if needed else ""
    return f"{len(positional)} arguments{by_name}"
