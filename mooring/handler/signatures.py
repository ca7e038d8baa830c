"""How a user's function wants to be called: with or without the context, and where the context goes."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .context import Context
from .errors import HandlerError
from .user_module import user_code

CONTEXT = "context"


class ContextPlace(Enum):
    """Where a function takes the context."""

    NOWHERE = "nowhere"
    LAST = "last"
    KEYWORD = "keyword"


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's module, and how it takes the context."""

    name: str
    call: Callable[..., Any]
    place: ContextPlace

    @classmethod
    def inspect(cls, name: str, call: Callable[..., Any], arguments: tuple[str, ...]) -> "UserFunction":
        """Return how a function is to be called. Raises `HandlerError` for a signature that cannot be."""
        return cls(name, call, _place(name, call, arguments))

    @property
    def is_async(self) -> bool:
        """Whether calling it gives something to be awaited, or iterated asynchronously."""
        return inspect.iscoroutinefunction(self.call) or inspect.isasyncgenfunction(self.call)

    def __call__(self, context: Context | list[Context], *arguments: Any) -> Any:
        """Call it. What it raises becomes a `HandlerError` without the details, which go to the log."""
        with user_code(f"The model's {self.name}"):
            match self.place:
                case ContextPlace.LAST:
                    return self.call(*arguments, context)
                case ContextPlace.KEYWORD:
                    return self.call(*arguments, context=context)
            return self.call(*arguments)


def _place(name: str, function: Callable[..., Any], arguments: tuple[str, ...]) -> ContextPlace:
    """Decide by number of positional parameters, as the earlier toolkits did, unless one is called `context`."""
    parameters = list(inspect.signature(function).parameters.values())
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [parameter for parameter in parameters if parameter.kind in by_place]
    named = next((parameter for parameter in parameters if parameter.name == CONTEXT), None)
    if named is not None and (named not in positional or positional.index(named) != len(arguments)):
        positional = [parameter for parameter in positional if parameter is not named]
        place = ContextPlace.KEYWORD
    elif named is not None:
        positional.remove(named)
        place = ContextPlace.LAST
    else:
        place = ContextPlace.NOWHERE
    required = sum(parameter.default is inspect.Parameter.empty for parameter in positional)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    if required <= len(arguments) and (takes_any or len(positional) >= len(arguments)):
        return place
    if place is ContextPlace.NOWHERE and required == len(arguments) + 1:
        return ContextPlace.LAST
    wanted = ", ".join(arguments)
    raise HandlerError(
        f"{name} takes {len(positional)} arguments; expected {name}({wanted}) or {name}({wanted}, context)."
    )
