"""Where the archive's pages are on Airflow's server."""

from urllib.parse import urlsplit

from airflow.configuration import conf

HOME = "/archive"


def address(rest: str = "") -> str:
    """An address of the archive on Airflow's server, below the path of the server's base address."""
    prefix = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{prefix}{HOME}/{rest}"
