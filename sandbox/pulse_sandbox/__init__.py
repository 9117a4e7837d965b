"""The outside world on one machine: stand-ins for ClickHouse and Telegram, and demo events."""

from pulse import PulseError


class SandboxError(PulseError):
    """A stand-in cannot be started or used. The text says why, and what to do."""
