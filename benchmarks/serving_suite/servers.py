"""The servers that are compared."""

from . import starts
from .models import as_named_rows, as_tensors
from .peer import RUNTIME, Peer, Way

BATCHED = (Way(1), Way(2), Way(1, starts.MOST_ROWS), Way(2, starts.MOST_ROWS))
INFER = starts.at(f"/v2/models/{starts.MODEL}/infer")
PREDICTIONS = starts.at(f"/predictions/{starts.MODEL}")
INVOCATIONS = starts.at("/invocations")
ALONE = (Way(1),)
ASGI = ("uvicorn", "uvloop", "httptools", "orjson", "onnxruntime")

MOORING = Peer(
    "Mooring", (), starts.mooring, starts.at(f"/models/{starts.MODEL}/invoke"), ways=ALONE, packages=("mooring", *ASGI)
)
RAW_LOOP = Peer("raw loop", (), starts.uvicorn("raw_loop:application"), INVOCATIONS, ways=ALONE, packages=ASGI)
BATCHING_LOOP = Peer(
    "batching loop", (), starts.uvicorn("batching_loop:application"), INVOCATIONS, ways=ALONE, packages=ASGI
)
FASTAPI = Peer(
    "FastAPI",
    ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", *RUNTIME),
    starts.uvicorn("fastapi_app:app"),
    starts.fastapi_path,
    packages=("fastapi", "uvicorn", "onnxruntime"),
)
MULTI_MODEL_SERVER = Peer(
    "multi-model-server",
    ("multi-model-server==1.1.11", "setuptools<80", *RUNTIME),
    starts.multi_model_server,
    PREDICTIONS,
    ways=BATCHED,
    prepare=starts.register,
    needs=("java",),
    packages=("multi-model-server", "onnxruntime"),
)
TORCHSERVE = Peer(
    "TorchServe",
    ("torchserve==0.12.0", "torch-model-archiver==0.12.0", "setuptools<80", "packaging", "pyyaml", *RUNTIME),
    starts.torchserve,
    PREDICTIONS,
    ways=BATCHED,
    needs=("java",),
    packages=("torchserve", "torch", "onnxruntime"),
    with_torch=True,
)
LITSERVE = Peer(
    "LitServe", ("litserve==0.2.19", *RUNTIME), starts.litserve, INVOCATIONS, packages=("litserve", "onnxruntime")
)
BENTOML = Peer(
    "BentoML",
    ("bentoml==1.4.30", *RUNTIME),
    starts.bentoml,
    INVOCATIONS,
    as_named_rows,
    packages=("bentoml", "onnxruntime"),
    can_pause=False,  # its batching would wait for what it takes the pause to be
)
MLSERVER = Peer(
    "MLServer",
    ("mlserver==1.7.1", *RUNTIME),
    starts.mlserver,
    INFER,
    as_tensors,
    ways=BATCHED,
    packages=("mlserver", "onnxruntime"),
)
PYTRITON = Peer(
    "pytriton",
    ("nvidia-pytriton==0.7.0", *RUNTIME),
    starts.pytriton,
    INFER,
    as_tensors,
    # With a second function its model never becomes ready here: "Timeout occurred while waiting for config file".
    ways=ALONE,
    variables=starts.python_library(),
    packages=("nvidia-pytriton", "onnxruntime"),
    can_pause=False,  # Triton takes a backend that stands still for dead
)

SERVERS = (
    MOORING,
    RAW_LOOP,
    BATCHING_LOOP,
    FASTAPI,
    MULTI_MODEL_SERVER,
    TORCHSERVE,
    LITSERVE,
    BENTOML,
    MLSERVER,
    PYTRITON,
)
