"""In which form an ONNX model is held: as its file is, mapped from the cache, or prepacked for speed.

Prepacking copies every weight of a MatMul or Conv into the layout that its kernel likes: 1.1 to 1.7 times as fast
(MiniLM, ResNet-18, batches of 1 to 16), and twice the memory. So it is for models that compute much.
"""

from pathlib import Path

import onnxruntime as ort

from mooring.handler.terms import Cancellation

from .model_cache import Tier

# Each session has threads of its own. In a model smaller than this a second one takes longer to wake than it helps (an
# answer of a 2 KB model: 127 µs with one thread, 287 with two), and a thousand models would have a thousand of them.
LEAST_BYTES_FOR_THREADS = 1 << 20


def open_session(
    file: Path, threads: int, tier: Tier = Tier.INLINE, cancellation: Cancellation | None = None
) -> ort.InferenceSession:
    """Return a session on a file; a mapped one needs the cache's form of it.

    Raises what onnxruntime raises, and `LoadCancelledError`.
    """
    options = ort.SessionOptions()
    # Only large models have a form in the cache, in which their weights lie beside the file.
    is_large = tier is not Tier.INLINE or file.stat().st_size >= LEAST_BYTES_FOR_THREADS
    options.intra_op_num_threads = threads if is_large else 1
    options.inter_op_num_threads = 1
    # Threads that spin while they wait would take the cores from the other models of the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors reach us as exceptions; warnings would flood the log for every model
    if tier is Tier.MAPPED:
        options.add_session_config_entry("session.disable_prepacking", "1")
        # The cache's form is optimised already; doing it again would copy weights out of the mapping.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with (cancellation or Cancellation()).stopping(lambda: options.set_load_cancellation_flag(True)):
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
