"""All rows, and what comes of them: each is tried, in order, whatever came of those before."""

import time
from collections.abc import Callable, Iterable, Iterator

from mooring.contract.errors import MooringError

from . import image_rows, multi_model_rows, request_rows, server_rows, training_rows
from .bench import Bench
from .finding import Finding, NotApplicableError, Outcome
from .row import Part, Result, Row
from .server import NotHealthyError

# In this order: parts together, and last of a server's rows the one that ends it.
ROWS = (
    *image_rows.ROWS,
    *training_rows.ROWS,
    *server_rows.ROWS,
    *request_rows.ROWS,
    *multi_model_rows.ROWS,
)


def rows_of(parts: Iterable[Part]) -> list[Row]:
    """Return the rows of some parts, all where none is named."""
    wanted = frozenset(parts) or frozenset(Part)
    return [row for row in ROWS if row.part in wanted]


def examine(bench: Bench, rows: Iterable[Row], on_start: Callable[[Row], object]) -> Iterator[Result]:
    """Try rows, and yield what came of each as soon as it is known."""
    for row in rows:
        on_start(row)
        began = time.monotonic()
        finding = _look(bench, row)
        yield Result(row, finding, time.monotonic() - began)


def _look(bench: Bench, row: Row) -> Finding:
    if why_not := bench.subject.why_not(row.part):
        return Finding(Outcome.NOT_APPLICABLE, why_not)
    try:
        return row.check(bench)
    except NotApplicableError as error:
        return Finding(Outcome.NOT_APPLICABLE, str(error))
    except NotHealthyError as error:
        return Finding(Outcome.NOT_APPLICABLE, f"There is no server to ask. {error}")
    except MooringError as error:
        return Finding(Outcome.FAILED, str(error))
