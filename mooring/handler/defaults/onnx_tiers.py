"""In which form an ONNX model is held: as its file is, mapped from the cache, or prepacked for speed.

Prepacking copies every weight of a MatMul or Conv into the layout that its kernel likes: 1.4 to 2.1 times faster at
batches of 16, no faster at 1, and twice the memory. So it is for models that are asked often.
"""

from enum import Enum
from pathlib import Path

import onnxruntime as ort

# Each session has threads of its own. In a model smaller than this a second one takes longer to wake than it helps (an
# answer of a 2 KB model: 127 µs with one thread, 287 with two), and a thousand models would have a thousand of them.
LEAST_BYTES_FOR_THREADS = 1 << 20


class Tier(Enum):
    """The forms."""

    INLINE = "inline"  # weights copied from the file, and prepacked: any model at first sight
    MAPPED = "mapped"  # weights mapped from the cache, not prepacked: cold
    PREPACKED = "prepacked"  # weights mapped from the cache, and prepacked: hot


def open_session(file: Path, threads: int, tier: Tier = Tier.INLINE) -> ort.InferenceSession:
    """Return a session on a file; a mapped one needs the cache's form of it. Raises what onnxruntime raises."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads if file.stat().st_size >= LEAST_BYTES_FOR_THREADS else 1
    options.inter_op_num_threads = 1
    # Threads that spin while they wait would take the cores from the other models of the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors reach us as exceptions; warnings would flood the log for every model
    if tier is Tier.MAPPED:
        options.add_session_config_entry("session.disable_prepacking", "1")
        # The cache's form is optimised already; doing it again would copy weights out of the mapping.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
