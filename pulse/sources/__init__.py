"""How the app's tables are read: a `sources.sql` with one SELECT for each of the pipeline's two views.

definition.py  a sources.sql, a preset's or the user's own: its statements and where they stand
contract.py    the columns that a statement has to have, and their types
views.py       the views, which convert ids and times and hash the attributes
presets/       sources of known shapes
"""

from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from pulse.settings import ROOT, Settings


@dataclass(frozen=True)
class Source:
    """Where the app's tables are, and how they are read.

    Args:
        shape: a preset's name, or a folder with a `sources.sql`.
        database: the app's database.
        zone: the zone of times in columns without one; the server's if it is None.
    """

    shape: str
    database: str
    zone: ZoneInfo | None = None

    def __str__(self) -> str:
        """What it is called in messages and in the comments of views; the same in every checkout of a project."""
        clock = f", times in {self.zone}" if self.zone else ""
        folder = Path(self.shape)
        shape = f"./{folder.relative_to(ROOT)}" if folder.is_relative_to(ROOT) else self.shape
        return f"{self.database} as {shape}{clock}"


def chosen(config: Settings) -> Source:
    """The source that the settings name."""
    zone = ZoneInfo(config.source_timezone) if config.source_timezone else None
    return Source(config.source, config.source_database, zone)
