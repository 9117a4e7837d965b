"""Where the archive's pages are on Airflow's server."""

from urllib.parse import urlsplit

from airflow.configuration import conf

HOME = "/archive"


def address(rest: str = "") -> str:
    """The address of a page of the archive, below the path of Airflow's base URL."""
    prefix = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{prefix}{HOME}/{rest}"
