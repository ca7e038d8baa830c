"""Where things lie below /opt/ml. Facts only: nothing here looks whether they exist."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_BASE = Path("/opt/ml")


@dataclass(frozen=True)
class ContainerPaths:
    """The platform's folders and files.

    >>> ContainerPaths().channel("train").as_posix()
    '/opt/ml/input/data/train'
    """

    base: Path = DEFAULT_BASE

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> "ContainerPaths":
        """Return the paths below SAGEMAKER_BASE_DIR, or below /opt/ml where that is not set."""
        return cls(Path(variables.get("SAGEMAKER_BASE_DIR") or DEFAULT_BASE))

    @property
    def input(self) -> Path:
        """What the platform gives a training job."""
        return self.base / "input"

    @property
    def input_config(self) -> Path:
        """The job's configuration files."""
        return self.input / "config"

    @property
    def input_data(self) -> Path:
        """The channels' folders and FIFOs."""
        return self.input / "data"

    def channel(self, name: str) -> Path:
        """Return the folder of a channel."""
        return self.input_data / name

    @property
    def hyperparameters_file(self) -> Path:
        """A flat object of strings."""
        return self.input_config / "hyperparameters.json"

    @property
    def input_data_config_file(self) -> Path:
        """Each channel's mode and format."""
        return self.input_config / "inputdataconfig.json"

    @property
    def resource_config_file(self) -> Path:
        """The hosts of the job, and which of them this is."""
        return self.input_config / "resourceconfig.json"

    @property
    def checkpoint_config_file(self) -> Path:
        """Where checkpoints are synced from; written only for jobs that asked."""
        return self.input_config / "checkpointconfig.json"

    @property
    def profiler_config_file(self) -> Path:
        """How a job is to be profiled; the platform may write it anew while the job runs."""
        return self.input_config / "profilerconfig.json"

    @property
    def debug_hook_config_file(self) -> Path:
        """What of a job's tensors is to be looked at."""
        return self.input_config / "debughookconfig.json"

    @property
    def tensorboard_config_file(self) -> Path:
        """Where TensorBoard's files are synced from; written only for jobs that asked."""
        return self.input_config / "tensorboardoutputconfig.json"

    @property
    def code(self) -> Path:
        """The user's code."""
        return self.base / "code"

    @property
    def model(self) -> Path:
        """What training exports and a single-model server serves."""
        return self.base / "model"

    @property
    def models(self) -> Path:
        """What a multi-model server is told to load lies below here."""
        return self.base / "models"

    @property
    def output(self) -> Path:
        """What a training job leaves besides its model."""
        return self.base / "output"

    @property
    def output_data(self) -> Path:
        """Uploaded as output.tar.gz when the job ends."""
        return self.output / "data"

    @property
    def output_intermediate(self) -> Path:
        """Synced while the job runs."""
        return self.output / "intermediate"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's files, unless the job names another folder; synced while the job runs."""
        return self.output / "tensorboard"

    @property
    def profiler(self) -> Path:
        """A profiler's files, unless the job names another folder."""
        return self.output / "profiler"

    @property
    def failure(self) -> Path:
        """Why the job failed; the platform shows its first 1,024 characters."""
        return self.output / "failure"

    @property
    def success(self) -> Path:
        """An empty marker that the earlier toolkit left; its users' tests look for it."""
        return self.output / "success"

    @property
    def checkpoints(self) -> Path:
        """Synced both ways at the start of a job, then outwards."""
        return self.base / "checkpoints"
