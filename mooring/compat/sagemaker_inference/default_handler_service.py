"""The service that multi-model-server called, over a `Transformer`."""

import sys
from pathlib import Path
from typing import Any

from .transformer import Transformer


class DefaultHandlerService:
    """`initialize` loads the model, `handle` answers; subclasses bring a `Transformer` of their own."""

    def __init__(self, transformer: Transformer | None = None) -> None:
        self._service = transformer or Transformer()

    def initialize(self, context: Any) -> None:
        """Load the model in the context's folder, with the code that lies beside it."""
        model_dir = context.system_properties["model_dir"]
        code = str(Path(model_dir) / "code")
        # The toolkit set PYTHONPATH, which a running interpreter does not look at again.
        if code not in sys.path:
            sys.path.insert(0, code)
        self._service.validate_and_initialize(model_dir=model_dir, context=context)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Return one answer for each request."""
        return self._service.transform(data, context)
