"""The alert chats' message about a held day: one for each day, which is edited when the day is released."""

from collections.abc import Sequence

from pulse.delivery import sending
from pulse.delivery.message import Delivery, Message
from pulse.publishing.holds import Hold
from pulse.reports.texts import held_notice
from pulse.settings import Settings

REPORT = "held"
"""Under which name the ledger of deliveries keeps the messages."""


def tell(hold: Hold, config: Settings, run: str = "") -> Sequence[Delivery]:
    """Tell the alert chats that a day is held; or, where they were told, that it was released or is as expected now.

    Args:
        hold: the day's latest step.
        config: which chats, and in which language.
        run: which run this is, for the ledger.

    Raises:
        TelegramError: some chats did not get it.
    """
    message = Message(held_notice(hold, config.language), only_edits=hold.state != "held")
    return sending.deliver(REPORT, hold.event_date, message, config.telegram_alert_chats, run=run, settings=config)
