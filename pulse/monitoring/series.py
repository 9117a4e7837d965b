"""The name of a watched series: a metric of the app as a whole, or of a slice."""

from typing import NamedTuple

TOTAL = ("total", "all")
"""The dimension and the value that stand for the app as a whole."""


class Series(NamedTuple):
    """A metric of a slice, or of the app as a whole if dimension and value are `TOTAL`."""

    metric: str
    dimension: str
    dimension_value: str

    @property
    def is_total(self) -> bool:
        """Whether it is about the app as a whole."""
        return (self.dimension, self.dimension_value) == TOTAL

    def __str__(self) -> str:
        return self.metric if self.is_total else f"{self.metric}, {self.dimension}: {self.dimension_value}"

    @classmethod
    def parse(cls, text: str) -> "Series":
        """Read a series from what `str` made of it."""
        metric, _, rest = text.partition(", ")
        dimension, _, value = rest.partition(": ")
        return cls(metric, dimension, value) if rest else cls(metric, *TOTAL)
