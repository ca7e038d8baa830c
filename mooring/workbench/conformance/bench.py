"""Where an image is tried: what it is, its servers and its jobs. Leaving its `with` block ends what was started."""

from dataclasses import dataclass
from typing import Self

from .jobs import Jobs
from .servers import Servers
from .subject import Subject


@dataclass(frozen=True)
class Bench:
    """What a row is given to find out with."""

    subject: Subject
    servers: Servers
    jobs: Jobs

    @classmethod
    def of(cls, subject: Subject) -> "Bench":
        """Return a bench on which nothing has been started yet."""
        return cls(subject, Servers(subject), Jobs(subject))

    def __enter__(self) -> Self:
        self.servers.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.servers.__exit__()
