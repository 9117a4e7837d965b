"""What the doctor looks at in this installation: version, packages, the archive, free space, Airflow."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
from packaging.requirements import Requirement

from pulse.doctor import Check, Finding, fault, fine, is_full, note
from pulse.execution.record import commit
from pulse.settings import ROOT, Settings, in_object_store, last_port

FREE_BYTES = 2e9
"""How many bytes the archive's disk should have free."""

SECONDS = 10.0
"""How long Airflow may take to say how it is."""


def _version(_: Settings) -> Iterator[Finding]:
    yield fine("Pulse", f"{version('pulse')}, commit {commit()[:18]}, Python {platform.python_version()}")
    lock = ROOT / "requirements.lock"
    if not lock.exists():
        return
    wanted = [Requirement(line.split("#")[0]) for line in lock.read_text().splitlines() if "==" in line]
    others = [
        f"{each.name} {found or 'missing'} ({each.specifier})"
        for each in wanted
        if (each.marker is None or each.marker.evaluate())
        and not each.specifier.contains(found := _installed(each.name))
    ]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        yield note(
            "packages", f"not those that were tested: {', '.join(others[:3])}{more}; `make install` installs them"
        )
    else:
        yield fine("packages", f"all {len(wanted)} as they were tested")


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _archive(config: Settings) -> Iterator[Finding]:
    if in_object_store(config.output):
        yield note("archive", f"{config.output} is an object store; a run says if it cannot be written")
        return
    folder = Path(config.output)
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield fault("archive", f"{folder} cannot be written ({error.strerror}); make it writable for this account")
        return
    usage = shutil.disk_usage(there)
    said = f"{folder} can be written, {usage.free / 1e9:,.0f} GB are free"
    if is_full(usage.free, usage.total, FREE_BYTES):
        yield fault("archive", f"{said}; make room, or runs will fail")
    else:
        yield fine("archive", said)


def _airflow(_: Settings) -> Iterator[Finding]:
    url = os.environ.get("AIRFLOW__API__BASE_URL", "").rstrip("/")
    if not url:
        port = last_port(Path(os.environ.get("AIRFLOW_HOME", ROOT / ".airflow")))
        url = f"http://127.0.0.1:{port}" if port else ""
    if not url:
        yield note("Airflow", "never ran here, and AIRFLOW__API__BASE_URL names none")
        return
    try:
        answer = httpx.get(f"{url}/api/v2/monitor/health", timeout=SECONDS, trust_env=False)
        health = answer.json() if answer.is_success else {}
    except (httpx.HTTPError, ValueError):
        health = {}
    if not health:
        yield fault("Airflow", f"nobody answers at {url}; start it (`pulse airflow`, or your own)")
        return
    parts = {name: part.get("status") for name, part in health.items() if isinstance(part, dict) and part.get("status")}
    ill = [name for name, status in parts.items() if status != "healthy"]
    if ill:
        yield fault("Airflow", f"at {url}, not healthy: {', '.join(ill)}; look into their logs, or start them again")
    else:
        yield fine("Airflow", f"at {url}: {', '.join(parts)} are healthy")


CHECKS = (Check("Pulse", _version), Check("archive", _archive), Check("Airflow", _airflow))
