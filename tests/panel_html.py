"""What the tests of the panels read out of a panel's HTML."""

from __future__ import annotations

import base64
import html
import re
from html.parser import HTMLParser

WAIT = 60  # seconds for a run in the background


def png(shown: str) -> bytes:
    """The picture; it has to be a PNG."""
    picture = base64.b64decode(re.search('base64,([^"]+)', shown)[1])
    assert picture.startswith(b"\x89PNG")
    return picture


def alt(shown: str) -> str:
    """The picture's alternative text."""
    assert png(shown)
    return html.unescape(re.search('alt="([^"]+)"', shown)[1])


def cells(shown: str) -> list[str]:
    """The cells of a table."""
    return [text for tag, _, text in Texts(shown).cells if tag in ("th", "td")]


class Texts(HTMLParser):
    """Collects the cells of a table, and complains about tags that are not closed in order."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[tuple[str, dict, str]] = []
        self.feed(shown)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag != "img":
            self.open.append(tag)
        if tag in ("th", "td", "caption", "img", "figcaption"):
            self.cells.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td", "caption", "figcaption"):
            tag, attrs, text = self.cells[-1]
            self.cells[-1] = (tag, attrs, text + data)
