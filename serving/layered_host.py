"""A host for a model that brings packages of its own: installs them first, in a folder that lies before all others.

Run as a fresh interpreter, because what a zygote has imported would win over the model's own version.
"""

import json
import socket
import sys
from pathlib import Path
from typing import Any

from mooring.artifact.requirements import InstallError, site_folder
from mooring.contract.environment import process_variables


def main() -> None:
    """Become the host that the first argument describes."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    variables = process_variables()
    problem: InstallError | None = None
    try:
        folder = site_folder(Path(given["requirements"]), variables)
    except InstallError as error:
        problem = error
    else:
        sys.path.insert(0, str(folder))
    # Imported only now: numpy and the like may be among the model's own packages.
    from .host import HostTerms, run

    terms = HostTerms(given["threads"], given["is_shared"], given["gpu_id"], variables, problem)
    sys.exit(run(socket.socket(fileno=given["listener"]), given["life"], terms))


if __name__ == "__main__":
    main()
