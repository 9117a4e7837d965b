"""The settings from the environment and `.env`, as one frozen and checked object. Nothing is read on import."""

import os
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pulse import PulseError

Language: TypeAlias = Literal["en", "ru"]
"""The languages of what people read."""

LANGUAGES: tuple[Language, ...] = get_args(Language)

SHORTEST = 6
"""The least length of a secret. A shorter one occurs in ordinary words and numbers, and would be masked there too."""

ROOT = Path(__file__).resolve().parent.parent

# The sandbox's stand-ins listen on loopback and have only demo data. Each keeps it in its own folder of SANDBOX.
SANDBOX = ROOT / ".sandbox"
SANDBOX_OWNER, SANDBOX_READER = "pulse:sandbox-only", "reader:sandbox-reader"
SANDBOX_TELEGRAM_TOKEN = "1000000001:sandbox-only-sandbox-only-sandbox-0"  # noqa: S105
SANDBOX_CHAT = "-1001"

KERNEL = (
    "CLICKHOUSE_URL",
    "PULSE_DATABASE",
    "PULSE_TABLE_PREFIX",
    "PULSE_SOURCE",
    "PULSE_SOURCE_DATABASE",
    "PULSE_SOURCE_TIMEZONE",
    "PULSE_TIMEZONE",
    "PULSE_LANGUAGE",
    "PULSE_ARCHIVE_URL",
    "SUPERSET_URL",
    "REDASH_URL",
)
"""The settings that a notebook gets when Pulse runs it. It sends and installs nothing, so it needs no others."""

IN_KERNEL = "PULSE_IN_KERNEL"
"""The variable that marks a kernel started by Pulse, which uses only its environment and does not read `.env`."""


class SettingsError(PulseError):
    """A setting is missing or wrong."""


class Settings(BaseSettings):
    """The project's settings; see `.env.example` for what each one means."""

    model_config = SettingsConfigDict(
        frozen=True, env_file=ROOT / ".env", env_ignore_empty=True, extra="ignore", case_sensitive=True
    )

    clickhouse_url: SecretStr = Field(
        default_factory=lambda: SecretStr(sandbox_url("clickhouse", SANDBOX_OWNER)), alias="CLICKHOUSE_URL"
    )
    database: str = Field("pulse", alias="PULSE_DATABASE", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    table_prefix: str = Field("", alias="PULSE_TABLE_PREFIX", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    source: str = Field("app", alias="PULSE_SOURCE")
    source_database: str = Field("app", alias="PULSE_SOURCE_DATABASE", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    source_timezone: str = Field("", alias="PULSE_SOURCE_TIMEZONE")
    timezone: str = Field("Europe/Moscow", alias="PULSE_TIMEZONE")
    language: Language = Field("en", alias="PULSE_LANGUAGE")
    output: str = Field(str(ROOT / "output"), alias="PULSE_OUTPUT")
    archive_url: str = Field("", alias="PULSE_ARCHIVE_URL", pattern=r"^(https?://\S+)?$")
    telegram_bot_token: SecretStr = Field(SecretStr(SANDBOX_TELEGRAM_TOKEN), alias="TELEGRAM_BOT_TOKEN")
    telegram_api_url: str = Field("", alias="TELEGRAM_API_URL")
    telegram_report_chats: str = Field(SANDBOX_CHAT, alias="TELEGRAM_REPORT_CHATS")
    telegram_live_chats: str = Field(SANDBOX_CHAT, alias="TELEGRAM_LIVE_CHATS")
    telegram_alert_chats: str = Field(SANDBOX_CHAT, alias="TELEGRAM_ALERT_CHATS")
    clickhouse_reader_url: SecretStr = Field(
        default_factory=lambda: SecretStr(sandbox_url("clickhouse", SANDBOX_READER)), alias="CLICKHOUSE_READER_URL"
    )
    superset_url: str = Field("", alias="SUPERSET_URL")
    superset_user: str = Field("", alias="SUPERSET_USER")
    superset_password: SecretStr = Field(SecretStr(""), alias="SUPERSET_PASSWORD")
    redash_url: str = Field("", alias="REDASH_URL")
    redash_api_key: SecretStr = Field(SecretStr(""), alias="REDASH_API_KEY")

    @field_validator("clickhouse_url", "clickhouse_reader_url")
    @classmethod
    def _is_an_address(cls, url: SecretStr) -> SecretStr:
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected http(s)://user:password@host:port")
        _long_enough(unquote(parts.password or ""))
        return url

    @field_validator("archive_url", "superset_url", "redash_url", "telegram_api_url")
    @classmethod
    def _holds_no_password(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError("expected an address without user and password, because it appears in messages and logs")
        return url

    @field_validator("telegram_bot_token", "superset_password", "redash_api_key")
    @classmethod
    def _can_be_masked(cls, secret: SecretStr) -> SecretStr:
        _long_enough(secret.get_secret_value())
        return secret

    @field_validator("output")
    @classmethod
    def _is_the_projects(cls, output: str) -> str:
        """Resolve a relative folder against the project's root, whatever the current folder is."""
        return output if in_object_store(output) else str(ROOT / Path(output).expanduser())

    @field_validator("source")
    @classmethod
    def _is_a_preset_or_the_projects(cls, source: str) -> str:
        """Resolve a folder, which has a slash in it, against the project's root, whatever the current folder is."""
        return str(ROOT / Path(source).expanduser()) if "/" in source else source

    @field_validator("timezone", "source_timezone")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        try:
            name and ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("expected an IANA time zone such as Europe/Moscow") from error
        return name

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which a day begins and ends."""
        return ZoneInfo(self.timezone)

    def chosen_language(self, text: str) -> Language:
        """The language that a notebook's parameter asks for: `en`, `ru`, or the setting's where it is empty.

        Raises:
            SettingsError: it is neither.
        """
        for language in LANGUAGES:
            if text == language:
                return language
        if text:
            raise SettingsError(
                f"language is '{text}'; give {' or '.join(LANGUAGES)}, or nothing for the setting PULSE_LANGUAGE."
            )
        return self.language

    def event_day(self, text: str) -> date:
        """Parse the event date of a parameter: an ISO date, or `yesterday` in the configured time zone.

        Raises:
            SettingsError: the text is not a date, or that day has not ended yet.
        """
        today = datetime.now(self.zone).date()
        if text == "yesterday":
            return today - timedelta(days=1)
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise SettingsError(
                f"'{text}' is not a date; give one such as {today - timedelta(days=1)}, or yesterday."
            ) from None
        if day >= today:
            raise SettingsError(
                f"{day} has not ended yet in {self.timezone}; give {today - timedelta(days=1)} or earlier."
            )
        return day

    def moment(self, text: str) -> datetime:
        """Parse the moment of a parameter, to the minute: ISO (local unless it has an offset), or `now`.

        Raises:
            SettingsError: the text is not a moment, or is in the future.
        """
        now = datetime.now(self.zone)
        try:
            given = now if text == "now" else datetime.fromisoformat(text)
        except ValueError:
            raise SettingsError(f"'{text}' is not a moment; give one such as {now:%Y-%m-%dT%H:%M}, or now.") from None
        # Converted through a timestamp, which is unambiguous even when clocks are set back.
        local = given if given.tzinfo else given.replace(tzinfo=self.zone)
        moment = datetime.fromtimestamp(local.timestamp(), self.zone).replace(second=0, microsecond=0)
        if moment.timestamp() > now.timestamp():  # two times of one zone would be compared by their local clock time
            raise SettingsError(f"{text} is in the future in {self.timezone}; give an earlier moment, or now.")
        return moment

    def day_bounds(self, day: date) -> tuple[datetime, datetime]:
        """`day_bounds` in the configured time zone."""
        return day_bounds(day, self.zone)

    @property
    def chats(self) -> dict[str, str]:
        """The chats of each use: `report`, `live` and `alert`."""
        return {
            "report": self.telegram_report_chats,
            "live": self.telegram_live_chats,
            "alert": self.telegram_alert_chats,
        }

    @property
    def secrets(self) -> list[str]:
        """The values that must not appear in any parameter, output, log or message."""
        values = {self.telegram_bot_token.get_secret_value(), self.redash_api_key.get_secret_value()}
        values.add(self.superset_password.get_secret_value())
        for url in (self.clickhouse_url, self.clickhouse_reader_url):
            password = urlsplit(url.get_secret_value()).password or ""
            values |= {password, unquote(password)}
        return sorted(filter(None, values))

    @property
    def for_kernels(self) -> dict[str, str]:
        """The environment variables with the settings for a notebook's kernel: those of `KERNEL`."""
        named = {str(field.alias): getattr(self, name) for name, field in type(self).model_fields.items()}
        return {
            name: named[name].get_secret_value() if isinstance(named[name], SecretStr) else named[name]
            for name in KERNEL
        }


def sandbox_url(stand_in: str, user: str = "") -> str:
    """The address where a stand-in of this checkout's sandbox listens, or listened last.

    The stand-in writes its port into its folder, so that the sandboxes of two checkouts can run side by side.

    Args:
        stand_in: `clickhouse` or `telegram`.
        user: the user and the password, with a colon between them.
    """
    port = last_port(SANDBOX / stand_in) or 9  # if it never ran here: nothing listens on the discard port
    return f"http://{user}{'@' if user else ''}127.0.0.1:{port}"


def last_port(folder: Path) -> int:
    """The port where the stand-in with this data folder listens, or listened last; 0 if it never did."""
    try:
        return int((folder / "port").read_text())
    except (OSError, ValueError):
        return 0


def in_object_store(path: str) -> bool:
    """Whether a path leads into an object store, such as `s3://bucket/archive`, rather than to a folder."""
    return "://" in path


def load(**overrides: str) -> Settings:
    """Read the settings from the environment and `.env`. In the kernel of a notebook, `.env` is not read (`IN_KERNEL`).

    Args:
        overrides: values by the names of the environment variables, which take precedence over both.

    Raises:
        SettingsError: a value is wrong. The text names the setting and what was expected, and never a secret.
    """
    try:
        return Settings(**({"_env_file": None} if os.environ.get(IN_KERNEL) else {}), **overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        what = "; ".join(f"{entry['loc'][0]}: {entry['msg'].removeprefix('Value error, ')}" for entry in found)
        raise SettingsError(f"Wrong setting: {what}. Correct it in the environment or in .env.") from None


def _long_enough(secret: str) -> None:
    if 0 < len(secret) < SHORTEST:
        raise ValueError(
            f"expected a secret of at least {SHORTEST} characters, because a shorter one cannot be masked without "
            "masking ordinary text"
        )


def day_bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The first moments of a local day and of the next one, as a half-open range; 23 to 25 hours at clock changes."""
    start, following = (datetime(d.year, d.month, d.day, tzinfo=zone) for d in (day, day + timedelta(days=1)))
    return start, following
