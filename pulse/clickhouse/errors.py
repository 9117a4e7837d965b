"""ClickHouse's errors, each as one sentence: what the server found, and what to check."""

import re

from pulse import PulseError

UNKNOWN_DATABASE, READONLY = 81, 164
ADVICE = {
    47: "Check that the source tables have the columns the notebook reads.",  # UNKNOWN_IDENTIFIER
    60: "Check PULSE_SOURCE_DATABASE and PULSE_DATABASE, and that the table exists.",  # UNKNOWN_TABLE
    UNKNOWN_DATABASE: "Check PULSE_SOURCE_DATABASE and PULSE_DATABASE, and that the database exists.",
    159: "The statement took longer than the server may spend on it; narrow it or raise max_seconds.",  # TIMEOUT
    70: "If this is an id of the source, its type there has become wider: the views have to be created anew.",
    READONLY: "The user may only read; give it write access to the project's database.",
    194: "Check the user and the password in CLICKHOUSE_URL.",  # REQUIRED_PASSWORD
    241: "The statement needs more memory than the server allows.",  # MEMORY_LIMIT_EXCEEDED
    497: "An administrator has to grant it; `pulse source sql` prints what the account needs.",  # ACCESS_DENIED
    516: "Check the user and the password in CLICKHOUSE_URL.",  # AUTHENTICATION_FAILED
}
"""What to check after an error, by the server's error code."""


class ClickHouseError(PulseError):
    """A statement failed. `code` is the server's error code, or None if no server answered."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


def from_answer(body: bytes | str) -> ClickHouseError:
    """Turn the server's answer into an error: its code, name and first line, then what to check.

    Args:
        body: the answer as it arrived, which may also come from a proxy.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
    line = next((line for line in text.splitlines() if line.strip()), "no message")
    if line.rstrip().endswith("Log:"):  # of another server that this one could not reach; the reasons follow
        reasons = re.findall(r"DB::(?:Net)?Exception: ([^\n]*?\([^()\s]+:\d+[^()]*\))", text)
        line = re.sub(r"Log:\s*$", reasons[0] if reasons else "", line)
    found = re.match(r"Code: (\d+)\. DB::(?:Net)?Exception: (.*)", line)
    if not found:
        return ClickHouseError(f"ClickHouse answered: {line[:300]}. Check that CLICKHOUSE_URL is a ClickHouse server.")
    code, message = int(found[1]), re.sub(r"\s*\(version .*?\)\s*$", "", found[2])
    name = re.search(r"\(([A-Z][A-Z0-9_]+)\)$", message)
    message = re.sub(r"\s*\([A-Z][A-Z0-9_]+\)$", "", message)
    # The rest would repeat the statement, or list the whole grammar.
    message = re.sub(r":?\s+In scope .*|\. Expected one of: .*", "", message).rstrip(". ")
    label = f"ClickHouse error {code}" + (f" ({name[1]})" if name else "")
    advice = f" {ADVICE[code]}" if code in ADVICE else ""
    return ClickHouseError(f"{label}: {message[:500]}.{advice}", code)
