"""Requests to Telegram that the ledger does not record: test messages, the bot's chats, and that the ledger is down."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pulse import wording
from pulse.delivery.access import bot_access, chat_list
from pulse.delivery.bot import Bot, Migrated, NotSent, Refused, Unknown, connected
from pulse.delivery.message import TelegramError
from pulse.delivery.pace import Limits
from pulse.delivery.refusals import failure
from pulse.settings import Settings, load

T = TypeVar("T")


def check(chat: str, settings: Settings | None = None) -> str:
    """Send a test message to a chat; returns a sentence that says where it arrived.

    Raises:
        TelegramError: it did not arrive; the text says what is wrong and what to do.
    """
    settings, recipient = settings or load(), chat_list([chat])[0]

    async def test(bot: Bot) -> str:
        name = await bot.name()
        await bot.send(recipient, wording.word("test", settings.language), silent=True)
        return f"The test message arrived in “{await bot.title(recipient)}” ({recipient}) from @{name}."

    return asyncio.run(_ask(settings, test, recipient))


def may_write(chat: str, settings: Settings | None = None) -> tuple[str, str]:
    """Whether the bot may write to a chat; asked by telling it that the bot is typing, which leaves no message.

    Returns:
        The bot's user name, and the chat's name.

    Raises:
        TelegramError: it may not; the text says what is wrong and what to do.
    """
    settings, recipient = settings or load(), chat_list([chat])[0]

    async def ask(bot: Bot) -> tuple[str, str]:
        await bot.type(recipient)
        return await bot.name(), await bot.title(recipient)

    return asyncio.run(_ask(settings, ask, recipient))


def heard_from(settings: Settings | None = None) -> list[tuple[str, str]]:
    """The chats that recently wrote to the bot, as `id` or `id/thread`, with their names: for finding a chat's id.

    Raises:
        TelegramError: Telegram cannot be asked.
    """
    return asyncio.run(_ask(settings or load(), lambda bot: bot.heard_from(), "the bot's chats"))


def send_unrecorded(text: str, chats: str | Sequence[str], settings: Settings | None = None) -> None:
    """Send a text to each chat once, without the ledger: for saying that the ledger itself cannot be reached.

    The caller remembers that it was said. A request without an answer is not repeated.

    Raises:
        TelegramError: some chats certainly did not get the text; the others did.
    """
    settings, recipients = settings or load(), chat_list(chats)

    async def send() -> list[str]:
        missing = []
        async with connected(*bot_access(settings), Limits().timeouts) as bot:
            for recipient in recipients:
                try:
                    await bot.send(recipient, text)
                except (NotSent, Refused, Migrated) as error:
                    missing.append(f"{recipient}: {failure(error)}")
                except Unknown:
                    continue
        return missing

    if missing := asyncio.run(send()):
        raise TelegramError("\n".join(missing))


async def _ask(settings: Settings, question: Callable[[Bot], Awaitable[T]], recipient: str) -> T:
    """Make one request to the Bot API, without retries."""
    try:
        async with connected(*bot_access(settings), Limits().timeouts) as bot:
            return await question(bot)
    except (NotSent, Refused, Migrated) as error:
        raise TelegramError(f"{recipient}: {failure(error)}") from None
    except Unknown as error:
        raise TelegramError(f"{recipient}: no answer from Telegram ({error}); check whether it arrived.") from None
