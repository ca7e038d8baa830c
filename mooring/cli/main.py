"""The command `mooring`: one sub-command per module, imported only when it is called."""

import importlib
import sys

from mooring import __version__

# Command -> its module and what it is for.
COMMANDS = {
    "init": ("mooring.cli.init", "write a new project"),
    "package": ("mooring.cli.package", "make a model.tar.gz of a model's folder"),
    "build": ("mooring.cli.build", "build an image, ours or a project's"),
    "sbom": ("mooring.cli.sbom", "say what an image holds: packages, versions, licences"),
    "push": ("mooring.cli.push", "push an image to ECR"),
    "run": ("mooring.cli.run", "run train or serve as the platform would"),
    "check": ("mooring.cli.check", "try what an image keeps of the platform's contract"),
    "train": ("mooring.cli.train", "run a training job, as the platform does"),
    "explain": ("mooring.cli.explain", "print what train would do, and do nothing"),
    "supervise": ("mooring.cli.supervise", "run a command as a container's first process"),
    "metrics": ("mooring.cli.metrics", "try metric definitions on a log, or show what a job reported"),
    "profile": ("mooring.cli.profile", "make the report of a training run's profile, and say what holds it up"),
    "serve": ("mooring.cli.serve", "serve one model, many, or a folder of them"),
    "transform": ("mooring.cli.transform", "send files to a model and write its answers, as a batch job"),
    "doctor": ("mooring.cli.doctor", "say how a model would be served, and why"),
    "completion": ("mooring.cli.completion", "print what bash or zsh needs to complete all of these"),
}

USAGE = """\
usage: mooring COMMAND [options]

Train PyTorch models and serve thousands of them from one container.

{commands}

`mooring COMMAND --help` tells more. In an image, `train` and `serve` are commands of their own.
"""


def main() -> None:
    """Run the sub-command that the first argument names."""
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in ("-h", "--help"):
        sys.stdout.write(usage())
        return
    if name == "--version":
        sys.stdout.write(f"mooring {__version__}\n")
        return
    if name not in COMMANDS:
        sys.stderr.write(f"mooring: there is no command '{name}'.\n\n{usage()}")
        sys.exit(2)
    sys.argv = [f"mooring {name}", *arguments]
    importlib.import_module(COMMANDS[name][0]).main()


def usage() -> str:
    """Return the help text."""
    lines = (f"  {name:<10} {purpose}" for name, (_, purpose) in COMMANDS.items())
    return USAGE.format(commands="\n".join(lines))
