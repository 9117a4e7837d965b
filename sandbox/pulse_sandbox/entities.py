"""Telegram's HTML, parsed into text and entities as the Bot API documents it, and rendered for a page.

Offsets and lengths are in UTF-16 code units, as everywhere in the Bot API. The error texts are those of Telegram's own
server (`parse_html` of TDLib), so a client sees the same texts here.
"""

import re
from dataclasses import dataclass, field
from html import escape
from typing import Any

Entity = dict[str, Any]

_TYPES = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "span": "spoiler",
    "tg-spoiler": "spoiler",
    "a": "text_link",
    "code": "code",
    "pre": "pre",
    "blockquote": "blockquote",
    "tg-emoji": "custom_emoji",
}
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_REFERENCE = re.compile(r"&(?:#x([0-9a-fA-F]{1,6})|#([0-9]{1,7})|(lt|gt|amp|quot));?")
_ATTRIBUTE = re.compile(r"""\s*([^\s=>"']+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9.-]+)))?""")
_ADDRESS = re.compile(r"https?://[^\s<>\"]*[^\s<>\".,;:!?)]")


class EntityError(ValueError):
    """The markup is not Telegram's HTML. The text is what the Bot API answers after `can't parse entities: `."""


def utf16(text: str) -> int:
    """The length of a text in UTF-16 code units, the unit of every limit of the Bot API."""
    return len(text.encode("utf-16-le")) // 2


@dataclass
class _Open:
    tag: str
    offset: int
    attributes: dict[str, str] = field(default_factory=dict)


def parse(markup: str) -> tuple[str, list[Entity]]:
    """The text and entities of a message sent with `parse_mode=HTML`, trimmed as Telegram trims them.

    Raises:
        EntityError: a tag is unsupported, unclosed or unmatched.
    """
    text, position = "", 0
    entities: list[Entity] = []
    stack: list[_Open] = []
    for found in re.finditer(r"[&<]", markup):
        start = found.start()
        if start < position:
            continue
        text += markup[position:start]
        if found[0] == "&":
            character, position = _character(markup, start)
            text += character
        elif markup.startswith("</", start):
            position = _close(markup, start, stack, text, entities)
        else:
            opened, position = _start_tag(markup, start)
            opened.offset = utf16(text)
            stack.append(opened)
    text += markup[position:]
    if stack:
        raise EntityError(f'Can\'t find end tag corresponding to start tag "{stack[-1].tag}"')
    entities.sort(key=lambda entity: (entity["offset"], -entity["length"]))
    return _trimmed(text, entities)


def plain(text: str) -> tuple[str, list[Entity]]:
    """The text and entities of a message sent without a parse mode."""
    return _trimmed(text, [])


def _character(markup: str, start: int) -> tuple[str, int]:
    found = _REFERENCE.match(markup, start)
    if found is None:
        return "&", start + 1
    code = int(found[1], 16) if found[1] else int(found[2]) if found[2] else 0
    if found[3]:
        return _NAMED[found[3]], found.end()
    if 0 < code < 0x10FFFF:
        return chr(code), found.end()
    return "&", start + 1


def _at(markup: str, position: int) -> str:
    return f"at byte offset {len(markup[:position].encode())}"


def _start_tag(markup: str, start: int) -> tuple[_Open, int]:
    name = re.compile(r"[^\s>]*").match(markup, start + 1)
    assert name is not None
    if name.end() == len(markup):
        raise EntityError(f"Unclosed start tag {_at(markup, start)}")
    tag = name[0].lower()
    if tag not in _TYPES:
        raise EntityError(f'Unsupported start tag "{tag}" {_at(markup, start)}')
    attributes: dict[str, str] = {}
    position = name.end()
    while (rest := re.compile(r"\s*").match(markup, position)) and not markup.startswith(">", rest.end()):
        found = _ATTRIBUTE.match(markup, position)
        if found is None:
            raise EntityError(f'Unclosed start tag "{tag}" {_at(markup, start)}')
        attributes[found[1].lower()] = re.sub(
            r"&[^;]*;", lambda each: _character(each[0], 0)[0], found[2] or found[3] or found[4] or ""
        )
        position = found.end()
    if tag == "span" and attributes.get("class") != "tg-spoiler":
        raise EntityError(f'Tag "span" must have class "tg-spoiler" {_at(markup, start)}')
    return _Open(tag, 0, attributes), rest.end() + 1 if rest else len(markup)


def _close(markup: str, start: int, stack: list[_Open], text: str, entities: list[Entity]) -> int:
    if not stack:
        raise EntityError(f"Unexpected end tag {_at(markup, start)}")
    found = re.compile(r"</([^\s>]*)\s*>").match(markup, start)
    if found is None:
        raise EntityError(f"Unclosed end tag {_at(markup, start)}")
    opened, name = stack.pop(), found[1].lower()
    if name and name != opened.tag:
        expected = f'expected "</{opened.tag}>", found "</{name}>"'
        raise EntityError(f"Unmatched end tag {_at(markup, start)}, {expected}")
    if entity := _entity(opened, text):
        entities.append(entity)
    return found.end()


def _entity(opened: _Open, text: str) -> Entity | None:
    length = utf16(text) - opened.offset
    entity: Entity = {"type": _TYPES[opened.tag], "offset": opened.offset, "length": length}
    if opened.tag == "a":
        url = opened.attributes.get("href") or text.encode("utf-16-le")[opened.offset * 2 :].decode("utf-16-le")
        if not re.match(r"(https?|tg|mailto|tel):", url) and "." not in url:
            return None
        entity["url"] = url if ":" in url else f"http://{url}"
    elif opened.tag == "tg-emoji":
        entity["custom_emoji_id"] = opened.attributes.get("emoji-id", "")
    elif opened.tag == "blockquote" and "expandable" in opened.attributes:
        entity["type"] = "expandable_blockquote"
    return entity if length > 0 else None


def _trimmed(text: str, entities: list[Entity]) -> tuple[str, list[Entity]]:
    """Strip white space at both ends, move the entities accordingly, and mark bare addresses."""
    kept = text.strip()
    lead, size = utf16(text[: len(text) - len(text.lstrip())]), utf16(kept)
    moved = []
    for entity in entities:
        start = max(entity["offset"] - lead, 0)
        end = min(entity["offset"] + entity["length"] - lead, size)
        if end > start:
            moved.append({**entity, "offset": start, "length": end - start})
    return kept, _with_addresses(kept, moved)


def _with_addresses(text: str, entities: list[Entity]) -> list[Entity]:
    taken = [
        (each["offset"], each["offset"] + each["length"])
        for each in entities
        if each["type"] in ("text_link", "code", "pre")
    ]
    for found in _ADDRESS.finditer(text):
        start, length = utf16(text[: found.start()]), utf16(found[0])
        if not any(first < start + length and start < last for first, last in taken):
            entities.append({"type": "url", "offset": start, "length": length})
    return sorted(entities, key=lambda entity: (entity["offset"], -entity["length"]))


_TAGS = {
    "bold": "b",
    "italic": "i",
    "underline": "u",
    "strikethrough": "s",
    "code": "code",
    "pre": "pre",
    "blockquote": "blockquote",
    "expandable_blockquote": "blockquote",
}


def render(text: str, entities: list[Entity]) -> str:
    """The text as HTML for a page, with its entities as tags and everything else escaped."""
    units = text.encode("utf-16-le")
    cuts = sorted(
        {0, len(units) // 2, *(e["offset"] for e in entities), *(e["offset"] + e["length"] for e in entities)}
    )
    html = ""
    stack: list[tuple[int, str]] = []  # where an open tag ends, and its end tag
    for cut, following in zip(cuts, [*cuts[1:], None], strict=True):
        while stack and stack[-1][0] <= cut:
            html += stack.pop()[1]
        for entity in (each for each in entities if each["offset"] == cut):
            start, end = _tags(entity, units)
            html += start
            stack.append((cut + entity["length"], end))
        if following is not None:
            html += escape(units[cut * 2 : following * 2].decode("utf-16-le"))
    return html


def _tags(entity: Entity, units: bytes) -> tuple[str, str]:
    kind = entity["type"]
    if kind in ("text_link", "url"):
        first, last = entity["offset"] * 2, (entity["offset"] + entity["length"]) * 2
        address = entity.get("url") or units[first:last].decode("utf-16-le")
        # Only addresses that cannot run anything in the page.
        if re.match(r"(https?|tg|mailto|tel):", address):
            return f'<a href="{escape(address)}" rel="noreferrer noopener" target="_blank">', "</a>"
        return "", ""
    if kind == "spoiler":
        return '<span class="spoiler">', "</span>"
    tag = _TAGS.get(kind)
    return (f"<{tag}>", f"</{tag}>") if tag else ("", "")
