"""The settings of the bot, checked: its address, its token, and the chats it writes to."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from pulse.delivery.message import TelegramError
from pulse.settings import SANDBOX_TELEGRAM_TOKEN, Settings, sandbox_url

API_URL = "https://api.telegram.org"


def chat_list(chats: str | Sequence[str]) -> list[str]:
    """Chats as `id`, `id/thread` or `@channel`, each once.

    A group's General topic, `id/1` in links, is not a thread for the Bot API: it is the group itself.

    Raises:
        TelegramError: there is no chat, or one of them is malformed.
    """
    listed = chats.split(",") if isinstance(chats, str) else chats
    found = list(dict.fromkeys(re.sub(r"/0*1$", "", chat.strip()) for chat in listed if chat.strip()))
    if not found:
        raise TelegramError("There is no chat to send to: set TELEGRAM_REPORT_CHATS, _LIVE_CHATS or _ALERT_CHATS.")
    for chat in found:
        if not re.fullmatch(r"(-?\d+|@\w+)(/\d+)?", chat):
            raise TelegramError(
                f"{chat!r} is not a chat: expected an id such as -1001234567890, or id/thread for a topic."
            )
    return found


def bot_access(settings: Settings) -> tuple[str, str]:
    """The Bot API's address and the token; the sandbox's where no token is set."""
    token = settings.telegram_bot_token.get_secret_value()
    api = settings.telegram_api_url or (sandbox_url("telegram") if token == SANDBOX_TELEGRAM_TOKEN else API_URL)
    # Both become part of an address, and the errors about a malformed address do not name the cause.
    if not re.fullmatch(r"\d+:[A-Za-z0-9_-]{20,}", token):
        raise TelegramError("TELEGRAM_BOT_TOKEN is not a bot's token: expected digits, a colon and letters.")
    if urlsplit(api).scheme not in ("http", "https") or not urlsplit(api).hostname:
        raise TelegramError("TELEGRAM_API_URL is not an address: expected http(s)://host, or nothing for Telegram.")
    return api, token
