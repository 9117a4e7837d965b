"""The chats of the Telegram stand-in as one HTML page that looks like a chat, readable on a phone.

The same page is served live and kept as a file. All styles are in it, nothing is loaded from elsewhere, and its photos
are beside it. Everything in a message is escaped, and the page's policy forbids everything that is not its own.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from pulse_sandbox.entities import render

SHOWN = 200
"""How many messages of a chat the page shows; the journal has all of them."""

STYLE = """
:root { --page:#d6e2d0; --bubble:#fff; --text:#111b14; --soft:#6a7a70; --link:#1c74c4; --bar:#fff; --line:#e3e8e4;
  --mine:#e9fbd9; --code:#eef2ef; --chip:rgba(70,95,80,.55); }
@media (prefers-color-scheme: dark) { :root { --page:#0f1712; --bubble:#1f2b25; --text:#edf3ef; --soft:#93a69b;
  --link:#6cb6f5; --bar:#18221d; --line:#2b3831; --mine:#2c4a36; --code:#16201b; --chip:rgba(80,105,92,.6); } }
* { box-sizing:border-box; }
html { -webkit-text-size-adjust:100%; }
body { margin:0; background:var(--page); color:var(--text);
  font:16px/1.4 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif; }
a { color:var(--link); }
nav { position:sticky; top:0; z-index:1; display:flex; gap:6px; overflow-x:auto; padding:8px 10px;
  background:var(--bar); border-bottom:1px solid var(--line); }
nav a { flex:none; padding:4px 12px; border-radius:14px; background:var(--code); color:var(--text); font-size:14px;
  text-decoration:none; }
section { max-width:560px; margin:0 auto; padding:0 10px 20px; scroll-margin-top:44px; }
header { padding:14px 4px 4px; }
h1 { margin:0; font-size:18px; }
header p { margin:0; color:var(--soft); font-size:13px; }
.day { margin:14px 0 8px; text-align:center; }
.day span { padding:3px 10px; border-radius:12px; background:var(--chip); color:#fff; font-size:13px; font-weight:600; }
article { width:fit-content; min-width:140px; max-width:min(100%,470px); margin:6px 0; border-radius:4px 14px 14px 14px;
  background:var(--bubble); box-shadow:0 1px 1px rgba(0,0,0,.14); overflow:hidden; }
article.person { margin-left:auto; border-radius:14px 4px 14px 14px; background:var(--mine); }
article:has(img) { width:100%; }
article img { display:block; width:100%; height:auto; background:#fff; }
.from, .reply, .body { margin:0 11px; }
.from { padding-top:6px; color:var(--link); font-size:14px; font-weight:600; }
.topic { color:var(--soft); font-weight:400; }
.from + img, .reply + img { margin-top:6px; }
.reply { margin-top:4px; padding:1px 8px; border-left:3px solid var(--link); border-radius:3px; background:var(--code);
  color:var(--soft); font-size:14px; white-space:nowrap; overflow:hidden; text-overflow:ellipsis; }
.body { padding-top:3px; white-space:pre-wrap; overflow-wrap:anywhere; }
.body code, .body pre { padding:0 3px; border-radius:4px; background:var(--code); font-size:14px;
  font-family:ui-monospace,"DejaVu Sans Mono",Consolas,monospace; }
.body pre { margin:4px 0; padding:6px 8px; white-space:pre; overflow-x:auto; }
.body blockquote { margin:4px 0; padding:1px 8px; border-left:3px solid var(--link); }
.spoiler { border-radius:3px; background:var(--soft); color:transparent; }
.spoiler:hover { background:none; color:inherit; }
footer { padding:1px 11px 6px; color:var(--soft); font-size:12px; text-align:right; }
.empty { margin:60px 20px; color:var(--soft); text-align:center; }
"""

# Polls the version of the page and shows the new one. The reader's position stays, unless it was at the end.
SCRIPT = """
let shown = null;
async function look() {
  try {
    const version = await (await fetch("version")).text();
    if (shown !== null && version !== shown) {
      const end = innerHeight + scrollY >= document.body.scrollHeight - 80;
      const page = new DOMParser().parseFromString(await (await fetch(location.pathname)).text(), "text/html");
      document.querySelector("main").replaceWith(page.querySelector("main"));
      if (end) scrollTo(0, document.body.scrollHeight);
    }
    shown = version;
  } catch { /* The server is away; it may come back. */ }
  setTimeout(look, 1000);
}
if (!location.hash) scrollTo(0, document.body.scrollHeight);
look();
"""


def policy(live: bool) -> str:
    """The page's Content-Security-Policy: only its own style and photos, and the one script if it is live."""
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    allowed = ["default-src 'none'", f"style-src 'sha256-{style}'", "base-uri 'none'", "form-action 'none'"]
    if live:
        return "; ".join(
            [*allowed, "img-src 'self'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
        )
    return "; ".join([*allowed, "img-src 'self' file:"])


def page(chats: Sequence[dict[str, Any]], messages: dict[int, list[dict[str, Any]]], zone: ZoneInfo, live: bool) -> str:
    """The whole page: every chat with its latest messages, oldest first. `live` adds the script that renews it."""
    title = chats[0]["title"] if len(chats) == 1 else "Sandbox chats"
    links = "".join(f'<a href="#chat{chat["id"]}">{escape(chat["title"])}</a>' for chat in chats)
    sections = "".join(_chat(chat, messages.get(chat["id"], []), zone) for chat in chats)
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "" if live else f'<meta http-equiv="Content-Security-Policy" content="{escape(policy(live))}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        '<script src="live.js" defer></script>' if live else "",
    ]
    nav = f"<nav>{links}</nav>" if len(chats) > 1 else ""
    body = f"<body><main>{nav}{sections}</main></body>"
    return f'<!doctype html>\n<html lang="en"><head>{"".join(head)}</head>{body}</html>\n'


def _chat(chat: dict[str, Any], messages: list[dict[str, Any]], zone: ZoneInfo) -> str:
    parts, day, hidden = [], None, max(len(messages) - SHOWN, 0)
    by_id = {message["id"]: message for message in messages}
    for message in messages[hidden:]:
        at = datetime.fromtimestamp(message["date"], UTC).astimezone(zone)
        if at.date() != day:
            day = at.date()
            parts.append(f'<div class="day"><span>{at:%a} {at.day} {at:%B %Y}</span></div>')
        parts.append(_message(chat, message, by_id, zone))
    if not messages:
        parts.append('<p class="empty">No messages yet.</p>')
    count = f"{len(messages)} message{'' if len(messages) == 1 else 's'}" + (
        f", the last {SHOWN} shown" if hidden else ""
    )
    header = f"<header><h1>{escape(chat['title'])}</h1><p>{escape(chat['type'])} {chat['id']} · {count}</p></header>"
    return f'<section id="chat{chat["id"]}">{header}{"".join(parts)}</section>'


def _message(chat: dict[str, Any], message: dict[str, Any], by_id: dict[int, dict[str, Any]], zone: ZoneInfo) -> str:
    topic = chat["topics"].get(str(message["thread"]), "") if message["thread"] else ""
    chip = f' <span class="topic">› {escape(topic)}</span>' if topic else ""
    parts = [f'<div class="from">{escape(message["from"])}{chip}</div>']
    if replied := by_id.get(message["reply_to"] or 0):
        parts.append(f'<div class="reply">{escape(_first_line(replied))}</div>')
    if photo := message["photo"]:
        size = f'width="{photo["width"]}" height="{photo["height"]}"'
        parts.append(f'<img src="photos/{escape(photo["file"])}" {size} alt="photo" loading="lazy">')
    if message["text"]:
        parts.append(f'<div class="body">{render(message["text"], message["entities"])}</div>')
    parts.append(f"<footer>{_marks(message, zone)}</footer>")
    kind = "person" if message["person"] else "bot"
    return f'<article id="message{chat["id"]}.{message["id"]}" class="{kind}">{"".join(parts)}</article>'


def _first_line(message: dict[str, Any]) -> str:
    return str((message["text"].splitlines() or ["Photo"])[0])


def _marks(message: dict[str, Any], zone: ZoneInfo) -> str:
    """The message's footer: whether it was silent, when it was edited, when it was sent."""
    sent = datetime.fromtimestamp(message["date"], UTC).astimezone(zone)
    marks = ["silent"] if message["silent"] else []
    if message["edited"]:
        edited = datetime.fromtimestamp(message["edited"], UTC).astimezone(zone)
        same_day = edited.date() == sent.date()
        marks.append(f"edited {edited:%H:%M}" if same_day else f"edited {edited.day} {edited:%b %H:%M}")
    return " · ".join([*marks, f"{sent:%H:%M}"])
