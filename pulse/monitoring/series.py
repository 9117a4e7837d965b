"""The series that are watched: a metric of the app as a whole, or of a slice."""

from typing import NamedTuple

TOTAL = ("total", "all")
"""The dimension and value of the app as a whole."""


class Series(NamedTuple):
    """A metric of a slice; of the app as a whole where dimension and value are `TOTAL`."""

    metric: str
    dimension: str
    dimension_value: str

    @property
    def is_total(self) -> bool:
        """Whether it is about all users."""
        return (self.dimension, self.dimension_value) == TOTAL

    def __str__(self) -> str:
        return self.metric if self.is_total else f"{self.metric}, {self.dimension}: {self.dimension_value}"

    @classmethod
    def parse(cls, text: str) -> "Series":
        """The series that is written so."""
        metric, _, rest = text.partition(", ")
        dimension, _, value = rest.partition(": ")
        return cls(metric, dimension, value) if rest else cls(metric, *TOTAL)
