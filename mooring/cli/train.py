"""The command `train`: what the platform starts in a training image."""

import argparse
import logging
import sys

from mooring.contract.environment import LOG_FORMAT, log_level, process_variables

DESCRIPTION = """\
Run the training job that /opt/ml/input/config describes, as SageMaker starts it.

  SAGEMAKER_PROGRAM=train.py train                     a script of yours, from /opt/ml/code
  MOORING_ALGORITHM=text-classification train          a program that comes with Mooring
  SAGEMAKER_BASE_DIR=/tmp/ml train                     another folder in place of /opt/ml
"""
EPILOG = """\
variables (a hyperparameter of the same name in lower case does for the SAGEMAKER_ ones):
  SAGEMAKER_PROGRAM              what to run, below /opt/ml/code: train.py, train.sh, `-m module`, or a command
  SAGEMAKER_SUBMIT_DIRECTORY     a folder, a .tar.gz or an s3:// address that holds it, if it lies elsewhere
  MOORING_ALGORITHM              a ready-made program instead; the hyperparameter is called algorithm (see below)
  MOORING_ARGUMENTS              how hyperparameters become arguments: sdk-v2 (default), sdk-v3, store-true, nargs or
                                 hydra
  MOORING_PROCESSES_PER_HOST     ranks on this host (default: one per GPU if the job is distributed, else one)
  MOORING_START_METHOD           fork (default): ranks of a Python script share one import of torch; spawn: they do not
  MOORING_MAX_RESTARTS           how often all ranks are started again, from the last checkpoint, after one failed (0)
  MOORING_JOIN_SECONDS           how long to wait for the other hosts of a distributed job (default 900)
  MOORING_GRACE_SECONDS          time to save and end after SIGTERM before everything is killed (default 100)
  MOORING_REQUIRE_OBJECTIVE      true: a tuning job's job that never reports its objective metric has failed (false)
  MOORING_TENSORBOARD            true: report(…) also writes TensorBoard's files, into /opt/ml/output/tensorboard
  MOORING_PROFILE                true or false: whether steps are profiled, whatever profilerconfig.json says
  MOORING_WATCHES                off, warn or stop: what is done about a loss that is NaN and the like
  SAGEMAKER_CONTAINER_LOG_LEVEL  10 debug, 20 info (default), 30 warning

ready-made programs (image-classification also where only a channel train_lst or an image_shape is given):
{programs}

A requirements.txt beside the script is installed first, torch stays as it is; wheels in a folder `wheels` beside it are
used instead of an index. `mooring explain` prints what would run.

SIGTERM and SIGINT reach every rank; a second one ends the job at once. Why a job failed is in /opt/ml/output/failure.

exit codes: 0 if every rank exited 0, else the code of the rank that failed first (128 + n for death by signal n);
1 if the job's files or settings cannot be used; 2 for wrong usage
"""


def main() -> None:
    """Run the command with the process's arguments and variables."""
    parser().parse_args()
    from mooring.training.launcher import launch

    variables = process_variables()
    logging.basicConfig(level=log_level(variables), format=LOG_FORMAT, stream=sys.stderr)
    sys.exit(launch(variables))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    from mooring.training.algorithm import described

    return argparse.ArgumentParser(
        prog="train",
        description=DESCRIPTION,
        epilog=EPILOG.format(programs=described()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
