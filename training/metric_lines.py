"""How a metric stands in the log: one value on a line, between delimiters that a metric definition can rely on.

    [metric] epoch=3; step=1200; loss=0.25;

A space stands before every name and a semicolon after every value, so ` loss=([0-9.eE+-]+);` finds this metric and no
other. Without the space it would find `val_loss=` too, whatever was printed.
"""

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

MARK = "[metric]"
# What the platform takes as a metric's name.
MAX_NAME = 255
NAME = re.compile(r"[^\s=;]+")
LINE = re.compile(rf"{re.escape(MARK)} (?P<place>(?:epoch=\S+; )?(?:step=\S+; )?)(?P<name>[^\s=;]+)=(?P<value>\S+);")
SIGNIFICANT_DIGITS = 8
SPECIAL, ESCAPED = re.compile(r"[.^$*+?{}\[\]\\|()]"), r"\\\g<0>"


def metric_lines(place: Mapping[str, float], values: Mapping[str, float]) -> Iterator[str]:
    """Yield a line for each value; `place` is the epoch and step that stand before it.

    >>> list(metric_lines({"epoch": 3}, {"loss": 0.25, "lr": 1e-05}))
    ['[metric] epoch=3; loss=0.25;', '[metric] epoch=3; lr=0.00001;']
    """
    before = "".join(f" {name}={number_text(value)};" for name, value in place.items())
    for name, value in values.items():
        yield f"{MARK}{before} {name}={number_text(value)};"


def definition_regex(name: str) -> str:
    """Return the regular expression of a metric definition that matches the metric of this name, and no other.

    >>> definition_regex("Train-accuracy")
    ' Train-accuracy=([0-9.eE+-]+);'
    """
    return f" {SPECIAL.sub(ESCAPED, name)}=([0-9.eE+-]+);"


def number_text(value: float) -> str:
    """Return a number without an exponent, which `([0-9.]+)` would cut off; "nan" and "inf" match no such expression.

    >>> number_text(3), number_text(0.1 + 0.2), number_text(2.5e-7), number_text(1e16), number_text(float("nan"))
    ('3', '0.3', '0.00000025', '10000000000000000', 'nan')
    """
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{Decimal(f'{value:.{SIGNIFICANT_DIGITS}g}'):f}"


def reported_name(line: str) -> str | None:
    """Return the name of the metric that a line of a log reports, None if it is no such line."""
    found = LINE.search(line)
    return found["name"] if found else None
