"""A custom runtime of MLServer, which speaks the Open Inference Protocol: `mlserver start FOLDER`."""

import os

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Tiny(MLModel):  # type: ignore[misc]
    """A model that is loaded once and asked with one tensor."""

    async def load(self) -> bool:
        """Load the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer with the model's output."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        output = self.session.run(None, {"x": np.asarray(rows, np.float32)})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", output)])
