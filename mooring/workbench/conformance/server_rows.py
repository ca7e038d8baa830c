"""Rows about a server of one model itself: how it starts, what it tells of itself, and how it stops."""

import time
from functools import partial

from mooring.workbench.endpoint import GRACE_SECONDS
from mooring.workbench.job import Limits

from .bench import Bench
from .finding import Finding, NotApplicableError, Outcome, counted, judged
from .image import BIND_TO_PORT
from .row import Part, row
from .server import NotHealthyError, pings_judged
from .servers import Conditions

_row = partial(row, Part.SERVING)

ACCEPT_SECONDS = 0.25
TRIES = 20
OTHER_PORT = 8123
BATCH_STRATEGIES = ("MULTI_RECORD", "SINGLE_RECORD")


@_row(
    "2.1",
    "it becomes healthy",
    "After `docker run IMAGE serve` the platform pings until /ping answers 200, for 4 minutes as a rule.",
)
def starts(bench: Bench) -> Finding:
    """The seconds are from `docker run` to the first 200."""
    try:
        server = bench.servers.shared()
    except NotHealthyError as error:
        advice = "If it needs a model, give one with --model; if it needs more time, with --timeout."
        return judged(False, str(error), advice)
    return judged(True, f"/ping answered 200 after {server.start_seconds:.1f} s.")


@_row("2.1", "it accepts connections at once", "A connection is accepted within 250 ms.")
def accepts(bench: Bench) -> Finding:
    """The slowest of some."""
    server = bench.servers.shared()
    slowest = 0.0
    for _ in range(TRIES):
        began = time.monotonic()
        server.connect().close()
        slowest = max(slowest, time.monotonic() - began)
    return judged(slowest <= ACCEPT_SECONDS, f"The slowest of {TRIES} took {slowest * 1000:.1f} ms.")


@_row("2.1", "/ping answers 200 in time", "A probe of /ping times out after 2 s; 200 is healthy, its body is not read.")
def pings(bench: Bench) -> Finding:
    """One after the other, with nothing else to do."""
    return pings_judged([bench.servers.shared().ask("GET", "/ping") for _ in range(TRIES)], "")


@_row(
    "2.6",
    "/execution-parameters, if any, is right",
    "A batch job may ask for MaxConcurrentTransforms, BatchStrategy and MaxPayloadInMB; 404 is legal.",
)
def execution_parameters(bench: Bench) -> Finding:
    """Optional, so one that has none has not failed."""
    answer = bench.servers.shared().ask("GET", "/execution-parameters")
    if answer.status == 404:
        raise NotApplicableError("It answers 404, so a batch job's own settings or the platform's are taken.")
    told = answer.json() if isinstance(answer.json(), dict) else {}
    is_fine = (
        answer.status == 200
        and isinstance(told.get("MaxConcurrentTransforms"), int)
        and told.get("BatchStrategy") in BATCH_STRATEGIES
        and isinstance(told.get("MaxPayloadInMB"), int)
    )
    return judged(is_fine, f"{answer}.", "Answer 404, or all three with values that a batch job may have.")


@_row(
    "2.1",
    "/metrics, if any, is Prometheus's text",
    "With detailed observability the platform reads /metrics each minute.",
)
def metrics(bench: Bench) -> Finding:
    """Optional, so one that has none has not failed."""
    answer = bench.servers.shared().ask("GET", "/metrics")
    if answer.status in (404, 405):
        raise NotApplicableError(f"It answers {answer.status}, so the platform has none of its own metrics to show.")
    kind = answer.headers.get("content-type", "")
    lines = [line for line in answer.body.decode(errors="replace").splitlines() if line and not line.startswith("#")]
    is_fine = answer.status == 200 and all(" " in line for line in lines)
    return judged(
        is_fine, f"{answer.status}, {kind}, {counted(len(lines), 'sample')}.", "Answer Prometheus's text format."
    )


@_row("2.11", "a model that cannot be written is served", "A model that is not compressed is mounted read-only.")
def read_only_model(bench: Bench) -> Finding:
    """All servers here have it mounted so; one that does not start is tried with a copy it may write."""
    if bench.subject.model is None:
        raise NotApplicableError("It serves what is in the image; give a model with --model.")
    try:
        bench.servers.shared()
    except NotHealthyError:
        with bench.servers.own(Conditions(can_write_model=True)):
            return judged(False, "It starts only where it may write to /opt/ml/model.", "Write below /tmp instead.")
    how = "mounted read-only" if bench.subject.image else "a link to a folder that was not written to"
    return judged(True, f"It serves a model that is {how}.")


@_row(
    "2.1",
    "it binds to the port it is told",
    "With the label accept-bind-to-port it is told a port by SAGEMAKER_BIND_TO_PORT.",
)
def binds_to_port(bench: Bench) -> Finding:
    """As the containers of a pipeline are."""
    if not bench.subject.facts.has_label(BIND_TO_PORT):
        raise NotApplicableError(f"It has no label {BIND_TO_PORT}=true, so the platform tells it no port.")
    port = f"port {OTHER_PORT}" if bench.subject.image else "the port it was told"
    bench.servers.shared()  # one that is not healthy in any case has not failed here
    try:
        with bench.servers.own(Conditions(port=OTHER_PORT)):
            return judged(True, f"It is healthy on {port}.")
    except NotHealthyError as error:
        return Finding(Outcome.FAILED, f"It is not healthy on {port}. {error}")


@_row("2.10", "it keeps to the limits it has", "A container may have a part of the machine's memory and cores.")
def keeps_to_limits(bench: Bench) -> Finding:
    """One core, and the memory that was given: it starts, answers, and is not killed."""
    bench.subject.need_image("limit of memory")
    memory = bench.subject.given.memory
    how = f"With 1 core and {memory} of memory"
    bench.servers.shared()
    try:
        with bench.servers.own(Conditions(limits=Limits(1, memory))) as server:
            answers = [server.ask("GET", "/ping")]
            if _knows_request(bench):
                answers += [server.invoke(bench.subject.request) for _ in range(TRIES)]
            is_fine = all(answer.status == 200 for answer in answers)
            seen = f"{how} it was healthy after {server.start_seconds:.1f} s and answered {len(answers)} requests."
            return judged(is_fine and server.is_running, seen, "Not all were answered 200.")
    except NotHealthyError as error:
        return Finding(Outcome.FAILED, f"{how}: {error} Give it more with --memory, if it needs more.")


@_row("2.1", "SIGTERM ends it within 30 s", "A stop is SIGTERM, and SIGKILL 30 s later.")
def stops(bench: Bench) -> Finding:
    """With nothing to do."""
    bench.servers.shared()
    with bench.servers.own(Conditions()) as server:
        code, seconds = server.stop()
    seen = f"{seconds:.1f} s after SIGTERM it ended with exit code {code}."
    return judged(
        code == 0 and seconds <= GRACE_SECONDS, seen, "Its first process has to take SIGTERM, and end with 0."
    )


def _knows_request(bench: Bench) -> bool:
    try:
        return bool(bench.subject.request)
    except NotApplicableError:
        return False


ROWS = (
    starts,
    accepts,
    pings,
    execution_parameters,
    metrics,
    read_only_model,
    binds_to_port,
    keeps_to_limits,
    stops,
)
