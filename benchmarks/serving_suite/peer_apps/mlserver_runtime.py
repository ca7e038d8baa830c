"""A custom runtime of MLServer, which speaks the Open Inference Protocol: `mlserver start FOLDER`."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving_suite.peer_apps.job import Job


class Rows(MLModel):  # type: ignore[misc]
    """A model that is loaded once and asked with one tensor."""

    async def load(self) -> bool:
        """Load the model."""
        self.job = Job()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer with the model's output."""
        output = self.job.run(self.job.read(NumpyCodec.decode_input(payload.inputs[0])))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("output", output)])
