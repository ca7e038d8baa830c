"""Rows about a server of many models: how it loads, lists, invokes and unloads, and what it refuses with which code."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from mooring.workbench.endpoint import GRACE_SECONDS
from mooring.workbench.job import Limits

from .bench import Bench
from .finding import Finding, NotApplicableError, Outcome, counted, judged
from .image import MULTI_MODELS
from .row import Part, row
from .samples import Request
from .server import LOAD_SECONDS, Answer, NotHealthyError, Server
from .servers import DAMAGED, FIRST, SECOND, Conditions

_row = partial(row, Part.MULTI_MODEL)

UNKNOWN = "f" * 32
JSON = {"Content-Type": "application/json"}
REQUESTS = 20
# A model of this many times the memory there is does not fit.
TIMES_TOO_LARGE = 1.5
COPIES = 200
UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@_row(
    "3.1", "its label says that it holds many models", f"Without the label {MULTI_MODELS}=true the platform refuses it."
)
def label(bench: Bench) -> Finding:
    """Of an image; the installed package has none."""
    bench.subject.need_image("labels")
    has_label = bench.subject.facts.has_label(MULTI_MODELS)
    return judged(has_label, f"The label is {'' if has_label else 'not '}there.", f"LABEL {MULTI_MODELS}=true")


@_row(
    "3.1",
    "it is healthy with no model",
    "With SAGEMAKER_MULTI_MODEL=true there is no model at first; /ping answers 200.",
)
def starts_empty(bench: Bench) -> Finding:
    """The seconds are from `docker run` to the first 200."""
    try:
        server = bench.servers.shared(Part.MULTI_MODEL)
    except NotHealthyError as error:
        return judged(False, str(error), "Do not wait for a model to be loaded.")
    return judged(True, f"/ping answered 200 after {server.start_seconds:.1f} s, with no model.")


@_row("3.2", "a model is loaded", "POST /models loads what lies at url, and answers 200 when it can be invoked.")
def loads(bench: Bench) -> Finding:
    """Unloaded again before the next row."""
    server = _server(bench)
    answer = _load(server, FIRST)
    _unload(server, FIRST)
    return judged(answer.status == 200, f"The load was answered {answer}, after {answer.seconds * 1000:.0f} ms.")


@_row("3.2", "a second load of a model is 409", "POST /models answers 409 for a name that is loaded.")
def refuses_second_load(bench: Bench) -> Finding:
    """One after the other, then two at once."""
    server = _server(bench)
    with _loaded(server, FIRST):
        answer = _load(server, FIRST)
    with ThreadPoolExecutor(2) as pool:
        statuses = sorted(pool.map(lambda name: _load(server, name).status, (FIRST, FIRST)))
    _unload(server, FIRST)
    return judged(
        answer.status == 409 and statuses == [200, 409],
        f"The second load was answered {answer}; two loads at once were answered {statuses[0]} and {statuses[1]}.",
    )


@_row("3.2", "models are listed", "GET /models lists what is loaded, each with modelName and modelUrl.")
def lists(bench: Bench) -> Finding:
    """One model, and none after it was unloaded."""
    server = _server(bench)
    with _loaded(server, FIRST):
        answer = server.ask("GET", "/models")
    wanted = (FIRST, server.model_urls[FIRST])
    listed = _listed(answer)
    after = _listed(server.ask("GET", "/models"))
    return judged(
        wanted in listed and not after, f"With one model loaded: {answer}. With none: {after}.", f"Expected {wanted}."
    )


@_row("3.2", "a model is described", "GET /models/{name} tells modelName and modelUrl.")
def describes(bench: Bench) -> Finding:
    """The earlier servers tell it in a list of one."""
    server = _server(bench)
    with _loaded(server, FIRST):
        answer = server.ask("GET", f"/models/{FIRST}")
    told = answer.json()
    told = told[0] if isinstance(told, list) and told else told
    is_fine = answer.status == 200 and isinstance(told, dict) and told.get("modelName") == FIRST
    return judged(is_fine, f"{answer}.")


@_row("3.2", "a model is invoked", "POST /models/{name}/invoke is what /invocations is for one model.")
def invokes(bench: Bench) -> Finding:
    """By name; the header that holds the client's name for it comes along."""
    server = _server(bench)
    with _loaded(server, FIRST):
        answer = _invoke(server, FIRST, bench.subject.request)
    return judged(answer.status == 200, f"{answer}, after {answer.seconds * 1000:.0f} ms.")


@_row("3.3", "invoking a model that is not loaded is 404", "On 404 the platform loads the model, and asks again.")
def invoke_of_unknown(bench: Bench) -> Finding:
    """A name that was never loaded."""
    answer = _invoke(_server(bench), UNKNOWN, bench.subject.request)
    return judged(answer.status == 404, f"{answer}.", "With another code the model is never loaded.")


@_row("3.2", "what is not loaded is neither described nor unloaded", "GET and DELETE /models/{name} answer 404.")
def unknown_is_404(bench: Bench) -> Finding:
    """A name that was never loaded."""
    server = _server(bench)
    answers = {method: server.ask(method, f"/models/{UNKNOWN}") for method in ("GET", "DELETE")}
    seen = ", ".join(f"{method} was answered {answer}" for method, answer in answers.items())
    return judged(all(answer.status == 404 for answer in answers.values()), f"{seen}.")


@_row("3.2", "an unloaded model is gone", "DELETE /models/{name} frees a model, and answers 200 then.")
def unloads(bench: Bench) -> Finding:
    """It is no longer described or invoked, and can be loaded again."""
    server = _server(bench)
    with _loaded(server, FIRST):
        answer = _unload(server, FIRST)
        after = [server.ask("GET", f"/models/{FIRST}").status, _unload(server, FIRST).status]
        again = _load(server, FIRST)
    return judged(
        answer.status == 200 and after == [404, 404] and again.status == 200,
        f"The unload was answered {answer}; GET and DELETE after it {after[0]} and {after[1]}; the next load "
        f"{again.status}.",
    )


@_row("3.2", "what is no model is not loaded", "A load that cannot be done is answered neither 200 nor 409.")
def refuses_damaged_model(bench: Bench) -> Finding:
    """A file that is no model, a folder that is not there, a body without a url."""
    server = _server(bench)
    damaged = _load(server, DAMAGED)
    missing = _load_from(server, UNKNOWN, server.model_urls[DAMAGED].replace(DAMAGED, UNKNOWN))
    bad = server.ask("POST", "/models", b"{}", JSON)
    after = server.ask("GET", "/ping").status
    statuses = (damaged.status, missing.status, bad.status)
    for name in (DAMAGED, UNKNOWN):
        _unload(server, name)
    return judged(
        not {200, 409} & set(statuses) and after == 200,
        f"A file that is no model: {damaged}. A folder that is not there: {missing}. A body without a url: {bad}. "
        f"/ping after: {after}.",
    )


@_row("3.2", "models are loaded beside requests", "Loads and unloads come while other models are invoked.")
def loads_beside_requests(bench: Bench) -> Finding:
    """One model is loaded and unloaded while another is invoked."""
    server, request = _server(bench), bench.subject.request

    def load_and_unload() -> list[int]:
        return [_load(server, SECOND).status, _unload(server, SECOND).status]

    with _loaded(server, FIRST), ThreadPoolExecutor(1) as pool:
        busy = pool.submit(load_and_unload)
        answers: list[Answer] = []
        while len(answers) < REQUESTS or not busy.done():
            answers.append(_invoke(server, FIRST, request))
        changed = busy.result()
    statuses = sorted({answer.status for answer in answers})
    slowest = max(answer.seconds for answer in answers) * 1000
    return judged(
        statuses == [200] and changed == [200, 200],
        f"{counted(len(answers), 'request')} were answered {', '.join(map(str, statuses))}, the slowest after "
        f"{slowest:.1f} ms; the other model's load and unload {changed[0]} and {changed[1]}.",
    )


@_row(
    "3.2",
    "a model that does not fit is 507",
    "A load for which there is no memory is answered 507; then the platform unloads others.",
)
def refuses_what_does_not_fit(bench: Bench) -> Finding:
    """A sample that is larger than the memory, or the model that was given until no more of it fit."""
    subject = bench.subject
    subject.need_image("limit of memory")
    if not subject.takes_samples and subject.given.model is None:
        raise NotApplicableError("There is no model to fill the memory with; give one with --model.")
    bench.servers.shared(Part.MULTI_MODEL)  # one that is not healthy in any case has not failed here
    memory = subject.given.memory
    size = int(TIMES_TOO_LARGE * _in_bytes(memory)) if subject.takes_samples else 0
    conditions = Conditions(is_multi_model=True, limits=Limits(memory=memory), model_bytes=size)
    try:
        with bench.servers.own(conditions) as server:
            return _fill(server, memory)
    except NotHealthyError as error:
        return Finding(Outcome.FAILED, f"With {memory} of memory: {error} Give it more with --memory.")


@_row("2.1", "SIGTERM ends it within 30 s", "A stop is SIGTERM, and SIGKILL 30 s later.")
def stops(bench: Bench) -> Finding:
    """With a model loaded."""
    server = _server(bench)
    loaded = _load(server, FIRST).status
    code, seconds = server.stop()
    seen = f"{seconds:.1f} s after SIGTERM it ended with exit code {code}; a load before it was answered {loaded}."
    return judged(
        code == 0 and seconds <= GRACE_SECONDS, seen, "Its first process has to take SIGTERM, and end with 0."
    )


# --- what rows are made of --------------------------------------------------------------------------------------------


def _server(bench: Bench) -> Server:
    """Return the rows' server. Raises `NotApplicableError` where there is no model for it."""
    if bench.subject.model is None:
        raise NotApplicableError("There is no model to load; give one with --model.")
    return bench.servers.shared(Part.MULTI_MODEL)


def _load(server: Server, name: str) -> Answer:
    return _load_from(server, name, server.model_urls[name])


def _load_from(server: Server, name: str, url: str) -> Answer:
    body = f'{{"model_name": "{name}", "url": "{url}"}}'.encode()
    return server.ask("POST", "/models", body, JSON, timeout=LOAD_SECONDS)


def _unload(server: Server, name: str) -> Answer:
    return server.ask("DELETE", f"/models/{name}", timeout=LOAD_SECONDS)


@contextmanager
def _loaded(server: Server, name: str) -> Iterator[None]:
    """Have a model loaded for a while. Raises `NotApplicableError` where it is not to be."""
    answer = _load(server, name)
    if answer.status != 200:
        raise NotApplicableError(f"No model could be loaded: the load was answered {answer}.")
    try:
        yield
    finally:
        _unload(server, name)


def _invoke(server: Server, name: str, request: Request) -> Answer:
    return server.invoke(request, f"/models/{name}/invoke", {"X-Amzn-SageMaker-Target-Model": "sample.tar.gz"})


def _listed(answer: Answer) -> list[tuple[Any, Any]]:
    told = answer.json()
    models = told.get("models") if isinstance(told, dict) else None
    entries = models if isinstance(models, list) else []
    return [(entry.get("modelName"), entry.get("modelUrl")) for entry in entries if isinstance(entry, dict)]


def _fill(server: Server, memory: str) -> Finding:
    """Load one model under many names until that is refused."""
    url = server.model_urls[FIRST]
    limit = time.monotonic() + LOAD_SECONDS
    for count in range(COPIES):
        answer = _load_from(server, f"{count:032x}", url)
        if answer.status != 200:
            seen = f"With {memory} of memory and {counted(count, 'model')} loaded, the next was answered {answer}."
            still = server.ask("GET", "/ping").status
            return judged(answer.status == 507 and still == 200, f"{seen} /ping after: {still}.")
        if time.monotonic() > limit:
            break
    raise NotApplicableError(f"{counted(count + 1, 'model')} fit into {memory}; give less with --memory.")


def _in_bytes(size: str) -> int:
    unit = UNITS.get(size[-1].lower())
    return int(size[:-1]) * unit if unit else int(size)


ROWS = (
    label,
    starts_empty,
    loads,
    refuses_second_load,
    lists,
    describes,
    invokes,
    invoke_of_unknown,
    unknown_is_404,
    unloads,
    refuses_damaged_model,
    loads_beside_requests,
    refuses_what_does_not_fit,
    stops,
)
