"""What went wrong with a request to Telegram, in a sentence that says what to do."""

from pulse.delivery.bot import Migrated, NotSent, Refused

RESEND = "`pulse deliveries resend {ref}` and another run send it as a new message"
TAKE_OUT = "take the chat out of the setting"
LET_IN = (
    "check the id, and let the bot in: a person presses Start in a chat with it, a group adds it as a member "
    "(`pulse telegram chats` lists the chats it has heard from)"
)
RIGHTS = "allow the bot to send messages and photos there"
ADMINISTRATOR = "make the bot an administrator there who may post messages"
# What Telegram's refusals contain, and what to do about them; the first match counts.
ADVICE = {
    "unauthorized": "set TELEGRAM_BOT_TOKEN to the token that @BotFather gave",
    "chat not found": LET_IN,
    "peer_id_invalid": LET_IN,
    "initiate conversation": "the person has to press Start in a chat with the bot first",
    "messages to bots": f"it is the id of a bot, and bots get no messages from bots: {TAKE_OUT}",
    "blocked": f"the person has to unblock the bot, or {TAKE_OUT}",
    "deactivated": f"the account or group is gone, {TAKE_OUT}",
    "kicked": f"add the bot to the group again, or {TAKE_OUT}",
    "group chat was deleted": f"the group is gone, {TAKE_OUT}",
    "participant": f"add the bot to the group or channel, or {TAKE_OUT}",
    "caption_too_long": "shorten the text",
    "not a member": f"add the bot to the group or channel, or {TAKE_OUT}",
    "channel_private": f"add the bot to the group or channel again, or {TAKE_OUT}",
    "upgraded to a supergroup": "the group has another id now, which `pulse telegram chats` lists once somebody writes",
    "administrator rights": ADMINISTRATOR,
    "chat_admin_required": ADMINISTRATOR,
    "chat_restricted": f"an administrator has to lift the bot's restrictions in this chat, or {TAKE_OUT}",
    "not enough rights": RIGHTS,
    "no rights": RIGHTS,
    "forbidden": RIGHTS,
    "thread not found": "there is no such topic, check the part after the slash",
    "topic_": "the topic is closed or gone, check the part after the slash",
    "message to edit not found": f"the message is gone, {RESEND}",
    "message_id_invalid": f"the message is gone, {RESEND}",
    "can't be edited": RESEND,
    "message_edit_time_expired": RESEND,
    "can't parse entities": "the text is not Telegram's HTML, escape the values in it with html.escape",
    "too long": "shorten the text",
    "message_too_long": "shorten the text",
}
BY_CODE = {
    404: "check TELEGRAM_BOT_TOKEN and TELEGRAM_API_URL",
    406: "Telegram refuses this from the bot: check its status with @BotFather, and whether it may write there",
    409: "another program uses this bot's getUpdates, stop it",
    413: "the message is too large, make the photo smaller",
}
ABOUT_PHOTO = ("photo", "image", "too big", "request entity too large")


def failure(error: NotSent | Refused | Migrated, ref: str = "") -> str:
    """What went wrong and what to do, for an attempt that certainly sent nothing.

    Args:
        error: what the bot raised.
        ref: the delivery's reference, for the commands in the advice.
    """
    reason = str(error).rstrip(".")
    if isinstance(error, Migrated):
        return f"nothing was sent: {reason}; put {error.chat} in place of the old id."
    if isinstance(error, Refused):
        said = reason.lower()
        advice = next((advice for key, advice in ADVICE.items() if key in said), BY_CODE.get(error.code, ""))
        if ref and advice.endswith(TAKE_OUT):
            advice += " and then take it off the list: `pulse deliveries dismiss {ref}`"
        return f"Telegram refused: {reason} ({error.code}){': ' + advice.format(ref=ref) if advice else ''}."
    return f"nothing was sent: {reason}; run it again later."


def is_about_photo(refusal: Refused) -> bool:
    return any(word in str(refusal).lower() for word in ABOUT_PHOTO)
