"""In which form an ONNX model is held: as its file is, mapped from the cache, or prepacked for speed.

Prepacking copies every weight of a MatMul or Conv into the layout that its kernel likes: 1.1 to 1.7 times as fast
(MiniLM, ResNet-18, batches of 1 to 16), and a copy more for each session. So it is for models that compute much.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from mooring.handler.errors import ModelLoadError
from mooring.handler.terms import Cancellation, LoadTerms

from .model_cache import LEAST_MODEL_BYTES, CachedModel, Tier
from .onnx_cache import OnnxCache
from .onnx_sessions import Sessions

# Each session has threads of its own. In a model smaller than this a second one takes longer to wake than it helps (an
# answer of a 2 KB model: 127 µs with one thread, 287 with two), and a thousand models would have a thousand of them.
LEAST_BYTES_FOR_THREADS = 1 << 20
# How long a thread that has nothing to do looks out for more before it sleeps, in µs; 20 to 1,000 were tried.
SPIN_US = "100"


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
    # Threads that always spin while they wait would take the cores from the other models of the process; those that
    # never do are woken once per operator, which costs MiniLM and one row a fifth of its speed. This bridges the gap.
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_US)
    options.log_severity_level = 3  # errors reach us as exceptions; warnings would flood the log for every model
    if tier is Tier.MAPPED:
        options.add_session_config_entry("session.disable_prepacking", "1")
        # The cache's form is optimised already; doing it again would copy weights out of the mapping.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with (cancellation or Cancellation()).stopping(lambda: options.set_load_cancellation_flag(True)):
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Form:
    """A model's file, and the form in which it is held."""

    file: Path
    terms: LoadTerms
    tier: Tier = Tier.INLINE
    cached: CachedModel | None = None

    @classmethod
    def first(cls, file: Path, terms: LoadTerms) -> "Form":
        """Return how a model is held from its load on: mapped if its mapped form has been made before."""
        if file.stat().st_size < LEAST_MODEL_BYTES:
            return cls(file, terms)
        cache = OnnxCache.open(terms.variables)
        cached = cache.find(file) if cache is not None else None
        return cls(file, terms, Tier.INLINE if cached is None else Tier.MAPPED, cached)

    def changed(self, wanted: Tier) -> "Form":
        """Return another form of the same model. Raises `ModelLoadError`."""
        cache = OnnxCache.open(self.terms.variables)
        cached = self.cached or (cache.find(self.file) if cache is not None else None)
        if cached is None and wanted is not Tier.INLINE:
            raise ModelLoadError(self.file, "its mapped form has not been made")
        return Form(self.file, self.terms, wanted, cached)

    def open(self, *, by_rows: bool = False) -> Sessions:
        """Return sessions, a hot model's for rows too if they are independent. Raises what onnxruntime raises."""
        terms, tier = self.terms, self.tier
        file = self.file if tier is Tier.INLINE or self.cached is None else self.cached.path
        whole = open_session(file, terms.threads, tier, terms.cancellation)
        if not by_rows or terms.threads == 1 or tier is not Tier.PREPACKED:
            return Sessions(whole)
        return Sessions(whole, open_session(file, 1, tier, terms.cancellation), terms.threads)

    def metadata(self) -> dict[str, Any]:
        """Return how the model is held, and the weights that are mapped for it, by content."""
        weights = dict(self.cached.weights) if self.cached is not None and self.tier is not Tier.INLINE else {}
        is_large = self.file.stat().st_size >= LEAST_MODEL_BYTES
        return {"tier": self.tier.value, "is_large": is_large, "weights": weights}
