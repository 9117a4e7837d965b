"""The Bot API's methods, without HTTP: documented results, Telegram's limits and error texts.

A method takes the store and the request's parameters (strings as they were sent, files as bytes). It returns the
documented result, or raises `Refusal`, which is the documented error answer.
"""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pulse_sandbox.chat_store import BOT, Store
from pulse_sandbox.entities import Entity, EntityError, parse, plain, utf16

MAX_TEXT, MAX_CAPTION = 4096, 1024
MAX_PHOTO_BYTES, MAX_PHOTO_SIDES, MAX_PHOTO_RATIO = 10 * 1024 * 1024, 10_000, 20
MAX_REQUEST_BYTES = 50 * 1024 * 1024

SAME = (
    "message is not modified: specified new message content and reply markup are exactly the same as a current content"
)


class Refusal(Exception):  # noqa: N818
    """An error answer of the Bot API."""

    def __init__(self, code: int, description: str, **parameters: Any) -> None:
        super().__init__(description)
        self.code, self.parameters = code, parameters
        prefix = {400: "Bad Request: ", 403: "Forbidden: ", 409: "Conflict: ", 429: "Too Many Requests: "}.get(code, "")
        self.description = prefix + description


Params = dict[str, Any]


def chat_of(store: Store, params: Params) -> dict[str, Any]:
    """Return the chat that a request names.

    Raises:
        Refusal: there is no such chat.
    """
    try:
        chat = store.chats.get(int(params.get("chat_id", "")))
    except ValueError:
        chat = None
    if "chat_id" not in params:
        raise Refusal(400, "chat_id is empty")
    if chat is None:
        raise Refusal(400, "chat not found")
    return chat


def _formatted(params: Params, name: str) -> tuple[str, list[Entity]]:
    mode, markup = params.get("parse_mode") or "", params.get(name) or ""
    if mode.lower() not in ("", "html"):
        raise Refusal(400, "unsupported parse_mode")
    try:
        return parse(markup) if mode else plain(markup)
    except EntityError as error:
        raise Refusal(400, f"can't parse entities: {error}") from None


def _text(params: Params) -> tuple[str, list[Entity]]:
    text, entities = _formatted(params, "text")
    if not text:
        raise Refusal(400, "message text is empty")
    if utf16(text) > MAX_TEXT:
        raise Refusal(400, "message is too long" if "message_id" not in params else "MESSAGE_TOO_LONG")
    return text, entities


def _caption(params: Params) -> tuple[str, list[Entity]]:
    text, entities = _formatted(params, "caption")
    if utf16(text) > MAX_CAPTION:
        raise Refusal(400, "message caption is too long")
    return text, entities


def _photo(store: Store, content: Any) -> dict[str, Any]:
    """Keep a photo within the documented limits: 10 MB, width and height of 10,000 together, a ratio of at most 20."""
    from PIL import Image, UnidentifiedImageError

    if not isinstance(content, bytes):
        raise Refusal(400, "there is no photo in the request")
    if len(content) > MAX_PHOTO_BYTES:
        text = f"file of size {len(content)} bytes is too big for a photo; the maximum size is {MAX_PHOTO_BYTES} bytes"
        raise Refusal(400, text)
    try:
        with Image.open(BytesIO(content)) as image:
            width, height = image.size
            suffix = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif"}[image.format or ""]
    except (UnidentifiedImageError, KeyError, OSError, Image.DecompressionBombError):
        raise Refusal(400, "IMAGE_PROCESS_FAILED") from None
    if width + height > MAX_PHOTO_SIDES or max(width, height) > MAX_PHOTO_RATIO * min(width, height):
        raise Refusal(400, "PHOTO_INVALID_DIMENSIONS")
    return {"file": store.keep_photo(content, suffix), "width": width, "height": height, "bytes": len(content)}


def _placed(store: Store, chat: dict[str, Any], params: Params) -> dict[str, Any]:
    """The topic, the silence and the message replied to, for a message that is about to be sent."""
    thread = params.get("message_thread_id")
    if thread is not None and str(thread) not in chat["topics"]:
        raise Refusal(400, "message thread not found")
    reply = json.loads(params.get("reply_parameters") or "{}")
    replied = int(reply.get("message_id") or 0)
    if replied and replied not in store.messages[chat["id"]]:
        if not reply.get("allow_sending_without_reply"):
            raise Refusal(400, "message to be replied not found")
        replied = 0
    silent = str(params.get("disable_notification", "")).lower() == "true"
    return {"thread": int(thread) if thread else None, "silent": silent, "reply_to": replied or None}


def _to_edit(store: Store, chat: dict[str, Any], params: Params) -> dict[str, Any]:
    message = store.messages[chat["id"]].get(int(params.get("message_id") or 0))
    if message is None:
        raise Refusal(400, "message to edit not found")
    if message["person"]:
        raise Refusal(400, "message can't be edited")
    return message


def _changed(store: Store, message: dict[str, Any], **changes: Any) -> dict[str, Any]:
    if all(message[name] == value for name, value in changes.items()):
        raise Refusal(400, f"{SAME} and reply markup of the message")
    return store.change(message, **changes)


def _get_me(_store: Store, _params: Params) -> Any:
    abilities = {"can_join_groups": True, "can_read_all_group_messages": False, "supports_inline_queries": False}
    return {**BOT, **abilities}


def _get_chat(store: Store, params: Params) -> Any:
    chat = chat_of(store, params)
    limits = {"accent_color_id": 0, "max_reaction_count": 11, "accepted_gift_types": _NO_GIFTS}
    return {**_chat_json(chat), **limits}


def _send_chat_action(store: Store, params: Params) -> Any:
    _placed(store, chat_of(store, params), params)
    return True


def _send_message(store: Store, params: Params) -> Any:
    chat = chat_of(store, params)
    text, entities = _text(params)
    return _message_json(store, store.add(chat["id"], text=text, entities=entities, **_placed(store, chat, params)))


def _send_photo(store: Store, params: Params) -> Any:
    chat = chat_of(store, params)
    text, entities = _caption(params)
    placed = _placed(store, chat, params)
    photo = _photo(store, params.get("photo"))
    return _message_json(store, store.add(chat["id"], text=text, entities=entities, photo=photo, **placed))


def _edit_message_text(store: Store, params: Params) -> Any:
    message = _to_edit(store, chat_of(store, params), params)
    if message["photo"]:
        raise Refusal(400, "there is no text in the message to edit")
    text, entities = _text(params)
    return _message_json(store, _changed(store, message, text=text, entities=entities))


def _edit_message_caption(store: Store, params: Params) -> Any:
    message = _to_edit(store, chat_of(store, params), params)
    if not message["photo"]:
        raise Refusal(400, "there is no caption in the message to edit")
    text, entities = _caption(params)
    return _message_json(store, _changed(store, message, text=text, entities=entities))


def _edit_message_media(store: Store, params: Params) -> Any:
    message = _to_edit(store, chat_of(store, params), params)
    try:
        media = json.loads(params.get("media") or "")
    except ValueError:
        raise Refusal(400, "can't parse InputMedia: JSON is expected") from None
    if media.get("type") != "photo":
        raise Refusal(400, "this sandbox knows photos only")
    text, entities = _caption(media)
    photo = _photo(store, params.get(str(media.get("media", "")).removeprefix("attach://")))
    return _message_json(store, _changed(store, message, text=text, entities=entities, photo=photo))


def _delete_message(store: Store, params: Params) -> Any:
    chat = chat_of(store, params)
    message = int(params.get("message_id") or 0)
    if message not in store.messages[chat["id"]]:
        raise Refusal(400, "message to delete not found")
    store.delete(chat["id"], message)
    return True


def _get_updates(store: Store, params: Params) -> Any:
    """What people wrote to the bot, from `offset` onwards. Long polling is answered at once."""
    first = max(int(params.get("offset") or 0), 1)
    found = list(enumerate(store.updates, start=1))[first - 1 : first - 1 + int(params.get("limit") or 100)]
    return [{"update_id": number, "message": _message_json(store, message)} for number, message in found]


METHODS: dict[str, Callable[[Store, Params], Any]] = {
    "getme": _get_me,
    "getchat": _get_chat,
    "sendchataction": _send_chat_action,
    "sendmessage": _send_message,
    "sendphoto": _send_photo,
    "editmessagetext": _edit_message_text,
    "editmessagecaption": _edit_message_caption,
    "editmessagemedia": _edit_message_media,
    "deletemessage": _delete_message,
    "getupdates": _get_updates,
}

_NO_GIFTS = {
    "unlimited_gifts": False,
    "limited_gifts": False,
    "unique_gifts": False,
    "premium_subscription": False,
    "gifts_from_channels": False,
}


def _chat_json(chat: dict[str, Any]) -> dict[str, Any]:
    """The Bot API's Chat."""
    if chat["type"] == "private":
        return {"id": chat["id"], "type": "private", "first_name": chat["title"]}
    forum = {"is_forum": True} if chat["topics"] else {}
    return {"id": chat["id"], "type": chat["type"], "title": chat["title"], **forum}


def _message_json(store: Store, message: dict[str, Any], shallow: bool = False) -> dict[str, Any]:
    """The Bot API's Message. A message that is replied to comes without the one that it replies to."""
    chat = store.chats[message["chat"]]
    person = {"id": 7, "is_bot": False, "first_name": message["from"]}
    found = {
        "message_id": message["id"],
        "from": person if message["person"] else BOT,
        "chat": _chat_json(chat),
        "date": message["date"],
    }
    if message["thread"]:
        found |= {"message_thread_id": message["thread"], "is_topic_message": True}
    if message["edited"]:
        found["edit_date"] = message["edited"]
    replied = store.messages[chat["id"]].get(message["reply_to"] or 0)
    if replied and not shallow:
        found["reply_to_message"] = _message_json(store, replied, shallow=True)
    words, marks = ("caption", "caption_entities") if message["photo"] else ("text", "entities")
    if message["photo"]:
        found["photo"] = _sizes(message["photo"])
    if message["text"]:
        found[words] = message["text"]
    if message["entities"]:
        found[marks] = message["entities"]
    return found


def _sizes(photo: dict[str, Any]) -> list[dict[str, Any]]:
    """The Bot API's PhotoSizes: scaled copies whose sides are at most 90, 320, 800 and 1,280 pixels."""
    longest, sizes = max(photo["width"], photo["height"]), []
    for side in (90, 320, 800, 1280):
        scale = min(side / longest, 1)
        sizes.append(
            {
                "file_id": f"{photo['file']}-{side}",
                "file_unique_id": f"{photo['file'][:12]}-{side}",
                "width": max(round(photo["width"] * scale), 1),
                "height": max(round(photo["height"] * scale), 1),
                "file_size": round(photo["bytes"] * scale * scale) or 1,
            }
        )
        if side >= longest:
            break
    return sizes
