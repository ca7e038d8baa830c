"""Rows about training jobs: what reaches a script, what is left of it, and how a job ends."""

from functools import partial
from itertools import pairwise
from typing import Any

from . import samples
from .bench import Bench
from .finding import Finding, NotApplicableError, judged
from .row import Part, row

_row = partial(row, Part.TRAINING)

SHOWN_CHARACTERS = 1024
# What scripts of the earlier toolkit read.
VARIABLES = (
    "SM_MODEL_DIR", "SM_OUTPUT_DIR", "SM_OUTPUT_DATA_DIR", "SM_INPUT_DIR", "SM_INPUT_CONFIG_DIR", "SM_CHANNELS",
    "SM_HPS", "SM_HOSTS", "SM_CURRENT_HOST", "SM_NETWORK_INTERFACE_NAME", "SM_NUM_CPUS", "SM_NUM_GPUS",
    "SM_USER_ARGS", "SM_USER_ENTRY_POINT", "SM_LOG_LEVEL", "SM_RESOURCE_CONFIG", "SM_INPUT_DATA_CONFIG",
    "SM_TRAINING_ENV", "SM_CURRENT_INSTANCE_TYPE",
)  # fmt: skip


@_row("1.1", "`train` runs a job and ends with 0", "A job is `docker run IMAGE train`; exit code 0 completes it.")
def trains(bench: Bench) -> Finding:
    """The job that was given, or a script that needs nothing but Python."""
    job = bench.jobs.main
    return judged(
        job.code == 0,
        f"{job}",
        "If it needs more time, channels, hyperparameters or code, give them (--timeout, --channel, --hyperparameters, "
        "--code); if it is not meant to train, leave training out with --only.",
    )


@_row("1.2", "a model is left", "What lies in /opt/ml/model at the end is uploaded as the model.")
def leaves_a_model(bench: Bench) -> Finding:
    """Whatever it is."""
    job = bench.jobs.main
    if job.code != 0:
        raise NotApplicableError("The job did not end well.")
    files = job.model_files
    shown = ", ".join(files[:5]) + (" …" if len(files) > 5 else "")
    return judged(bool(files), f"In /opt/ml/model: {shown or 'nothing'}.", "Write the model there before the end.")


@_row(
    "1.3",
    "hyperparameters reach the script as arguments",
    "hyperparameters.json holds strings, JSON-encoded by SDK v2; a script gets them as `--name value`.",
)
def hyperparameters(bench: Bench) -> Finding:
    """Each value is one argument, also with a blank and a `$` in it."""
    arguments = _list(bench.jobs.seen["arguments"])
    pairs = list(pairwise(arguments))
    missing = [name for name, value in samples.HYPERPARAMETERS.items() if (f"--{name}", str(value)) not in pairs]
    return judged(
        not missing,
        f"Of {samples.HYPERPARAMETERS} the script got {arguments}.",
        f"Not as they were given: {', '.join(missing)}. Hand arguments on as a list, never through a shell.",
    )


@_row(
    "1.4",
    "channels reach the script",
    "A channel is a folder below /opt/ml/input/data, and SM_CHANNEL_<NAME> names it.",
)
def channels(bench: Bench) -> Finding:
    """One channel with one file."""
    variable = f"SM_CHANNEL_{samples.CHANNEL.upper()}"
    named, files = _variables(bench).get(variable), bench.jobs.seen["files"]
    return judged(
        files == [samples.CHANNEL_FILE] and str(named).endswith(f"/input/data/{samples.CHANNEL}"),
        f"{variable} is {named}, and the channel holds {files}.",
    )


@_row("1.5", "hosts reach the script", "resourceconfig.json names the hosts and the current one, algo-1 first.")
def hosts(bench: Bench) -> Finding:
    """One host, which is called what the file calls it."""
    variables = _variables(bench)
    known = variables.get("SM_CURRENT_HOST"), variables.get("SM_HOSTS")
    return judged(known == ("algo-1", '["algo-1"]'), f"SM_CURRENT_HOST is {known[0]}, SM_HOSTS is {known[1]}.")


@_row("1.7", "the variables of script mode are there", "Scripts find the job in SM_ variables.")
def variables(bench: Bench) -> Finding:
    """Those that scripts of the earlier toolkit read."""
    found = _variables(bench)
    missing = [name for name in VARIABLES if name not in found]
    return judged(not missing, f"{len(found)} SM_ variables.", f"Missing: {', '.join(missing)}.")


@_row(
    "1.1",
    "output is seen when it is written",
    "What a job writes goes to its log; PYTHONUNBUFFERED=1 keeps it from waiting in a buffer.",
)
def unbuffered(bench: Bench) -> Finding:
    """A line that the sample prints, without flushing, while it runs on."""
    _ = bench.jobs.seen
    stopped = bench.jobs.stopped
    if not stopped.was_under_way:
        raise NotApplicableError(f"The sample did not get under way. {stopped.ended}")
    seen = "was seen while the script ran" if stopped.was_heard_of else "was not seen while the script ran"
    return judged(stopped.was_heard_of, f"A line {seen}.", "Set PYTHONUNBUFFERED=1 in the image.")


@_row("1.1", "SIGTERM ends a job within 120 s", "A stop is SIGTERM to the first process, and SIGKILL 120 s later.")
def stops(bench: Bench) -> Finding:
    """Where scripts are run, the signal has to reach the script, whose own end decides the exit code."""
    stopped = bench.jobs.stopped
    job = stopped.ended
    if not stopped.was_under_way:
        raise NotApplicableError(f"No job was under way that could be stopped. {job}")
    seen = f"{job.seconds:.1f} s after SIGTERM it ended with exit code {job.code}."
    if bench.jobs.sample.seen is None:
        return judged(job.code != 137, seen, "It was killed: SIGTERM has to reach the program that trains.")
    was_told = samples.STOPPED in job.model_files
    reached = "The signal reached the script." if was_told else "The signal did not reach the script."
    return judged(
        was_told and job.code == 0,
        f"{reached} {seen}",
        "A first process has to pass SIGTERM on, wait for the script, and end with its exit code (which was 0).",
    )


@_row("1.1", "a script that fails fails the job", "Any exit code but 0 fails a job.")
def exit_code(bench: Bench) -> Finding:
    """That it is the script's own is not asked for, and told."""
    code = bench.jobs.failed.code
    whose = "the script's own" if code == samples.EXIT_CODE else f"not the script's own, {samples.EXIT_CODE}"
    return judged(code not in (0, None), f"The exit code is {code}, {whose}.", "A failure has to be seen outside.")


@_row(
    "1.2",
    "the failure file tells the cause",
    "The first 1,024 characters of /opt/ml/output/failure are shown as the reason of a failure.",
)
def failure_file(bench: Bench) -> Finding:
    """The script's traceback is longer than what is shown, so that it matters which part is left out."""
    text = bench.jobs.failed.failure
    if text is None:
        return judged(False, "There is no failure file.", "Write why the job failed to /opt/ml/output/failure.")
    first = text.strip().splitlines()[0] if text.strip() else ""
    seen = f'It has {len(text):,} characters and begins with "{first[:200]}".'
    if samples.CAUSE not in text[:SHOWN_CHARACTERS]:
        return judged(False, seen, "The cause is not in the 1,024 characters that are shown; write it first.")
    return judged(len(text) <= SHOWN_CHARACTERS, seen, "The rest of it is shown to nobody.")


@_row("1.6", "a job needs no network", "With network isolation a job reaches nothing, not even S3.")
def no_network(bench: Bench) -> Finding:
    """A container without any network but its own loopback."""
    bench.subject.need_image("network of their own")
    if bench.jobs.main.code != 0:
        raise NotApplicableError("The job did not end well with a network.")
    script = None if bench.subject.given.has_job else samples.SHOWS_WHAT_IT_SEES
    job = bench.jobs.run(script, ("--network", "none"))
    return judged(job.code == 0, f"Without a network: {job}", "What it fetches has to be in the image or a channel.")


def _variables(bench: Bench) -> dict[str, Any]:
    found = bench.jobs.seen["variables"]
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[str]:
    return value if isinstance(value, list) else []


ROWS = (
    trains,
    leaves_a_model,
    hyperparameters,
    channels,
    hosts,
    variables,
    exit_code,
    failure_file,
    unbuffered,
    stops,
    no_network,
)
