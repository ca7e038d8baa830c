"""What KServe's own client sends to a server and reads from its answers, as JSON: `kserve_client.py FOLDER URL`.

With `MODEL OUTPUT` after these, one model that takes rows of three floats is asked instead of the tests' own two.

The folder holds KServe's package. Of it only the client's module is imported, and what that imports: the package's root
would bring the Kubernetes client and a server. Of pandas it reads one name, for data frames, which nobody sends here.
"""

import asyncio
import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

FOLDER, URL, *ONE = sys.argv[1:]
TWO_ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
package = types.ModuleType("kserve")
package.__path__ = [str(Path(FOLDER, "kserve"))]
pandas = types.ModuleType("pandas")
pandas.DataFrame = type("DataFrame", (), {})  # type: ignore[attr-defined]
sys.modules |= {"kserve": package, "pandas": pandas}
sys.path.insert(0, FOLDER)

from kserve.inference_client import InferenceRESTClient, RESTConfig  # noqa: E402
from kserve.protocol.infer_type import InferInput, InferRequest, RequestedOutput  # noqa: E402


async def infer(client: Any, model: str, values: list[list[float]], output: str, *, sends: bool, asks: bool) -> Any:
    """What a model answers, with the tensors sent and asked for as bytes or as JSON."""
    tensor = InferInput("x", [len(values), len(values[0])], "FP32")
    tensor.set_data_from_numpy(np.array(values, np.float32), binary_data=sends)
    outputs = [RequestedOutput(output, {"binary_data": asks})]
    request = InferRequest(model, [tensor], request_id="42", request_outputs=outputs)
    answer = await client.infer(URL, request, model_name=model)
    (given,) = [one for one in answer.outputs if one.name == output]
    facts = {"id": answer.id, "model": answer.model_name, "shape": given.shape, "type": given.datatype}
    return facts | {"values": given.as_numpy().tolist()}


async def both(call: Callable[[bool, bool], Any]) -> list[Any]:
    """What a call gives as JSON and as bytes, there and back."""
    return [await call(sends, asks) for sends in (False, True) for asks in (False, True)]


async def refusal(client: Any) -> Any:
    """How the client tells of a tensor that does not fit."""
    try:
        await infer(client, "scale", [[1, 2]], "y", sends=True, asks=True)
    except httpx.HTTPStatusError as error:
        return {"status": error.response.status_code, "message": str(error)}


async def health(client: Any, models: Sequence[str]) -> dict[str, Any]:
    """What the client makes of the server's health, and of its models'."""
    return {
        "live": await client.is_server_live(URL),
        "ready": await client.is_server_ready(URL),
        "ready models": [await client.is_model_ready(URL, name) for name in models],
    }


async def main() -> None:
    """Print everything that was asked, by name."""
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=30)) as client:
        model, output = ONE or ("scale", "y")
        data = await both(lambda sends, asks: infer(client, model, TWO_ROWS, output, sends=sends, asks=asks))
        answers: dict[str, Any] = {"data": data}
        if not ONE:
            code = await both(lambda sends, asks: infer(client, "code", [[1, 2]], "tripled", sends=sends, asks=asks))
            answers |= {"code": code, "refusal": await refusal(client)}
        # Last: a repository's models are loaded when they are asked.
        answers |= await health(client, [model] if ONE else ["scale", "code", "nobody"])
    print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main())
