"""What a metric is told apart by."""


class Dimension:
    """A name and its value."""

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def to_dict(self) -> dict[str, str]:
        """Return name and value."""
        return {"Name": self.name, "Value": self.value}
