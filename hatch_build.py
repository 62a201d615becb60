"""What Hatchling runs while it builds mapfs: makes pages for man(1) of docs/man/*.md.

A page is in the macros of man(7), and in nothing else of roff but escapes for fonts and characters,
so that man-db and mandoc show it alike. Tables become lists of terms: man(7) has no tables.
"""

import posixpath
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode as Node

_PAGES: Final = "docs/man"
# A hyphen of text would become one that no shell understands, and so would quotes.
_ESCAPES: Final = str.maketrans(
    {
        "\\": r"\(rs",
        "-": r"\-",
        "'": r"\(aq",
        "`": r"\(ga",
        "^": r"\(ha",
        "~": r"\(ti",
        "…": "...",
    }
)


class ManualPages(BuildHookInterface[BuilderConfig]):
    """Adds the pages to a wheel, an editable one too, as shared data."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del version  # of the wheel's kind, as `editable`
        self._made = TemporaryDirectory(prefix="mapfs-man-")
        for source in sorted(Path(self.root, _PAGES).glob("*.md")):
            page = Path(self._made.name, source.stem)
            page.write_text(as_roff(source.read_text("utf-8"), self.metadata.version), "ascii")
            build_data["shared_data"][str(page)] = f"share/man/man{page.suffix[1:]}/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        del version, build_data, artifact_path
        self._made.cleanup()


def as_roff(markdown: str, version: str) -> str:
    """A page of `docs/man` for man(1).

    Raises KeyError or ValueError for Markdown that no page has had yet, as lists in lists.
    """
    first, *blocks = Node(MarkdownIt("commonmark").enable("table").parse(markdown)).children
    name, section = _man_page(_inline(first.children[0]))
    title = f'.TH {name.upper()} {section} "" "mapfs {version}" "mapfs"\n.nh\n.ad l\n'
    return title + "".join(_BLOCKS[block.type](block) for block in blocks)


def _man_page(text: str) -> tuple[str, str]:
    """Name and section of `name(section)`."""
    found = re.fullmatch(r"([^()\s]+)\((\d)\)", text)
    if not found:
        raise ValueError(f"not the name and section of a page: {text!r}")
    return found[1], found[2]


# Blocks


def _heading(block: Node) -> str:
    macro = {"h2": ".SH", "h3": ".SS"}[block.tag]
    return f"{macro} {_inline(block.children[0])}\n"


def _paragraph(block: Node) -> str:
    before = block.previous_sibling
    begin = "" if before and before.type == "heading" else ".PP\n"
    return begin + _lines(_inline(block.children[0]))


def _code(block: Node) -> str:
    return f".IP\n.EX\n{_lines(_escaped(block.content.rstrip()))}.EE\n"


def _list(block: Node) -> str:
    """Of terms, if each item begins with one."""
    texts = []
    for item in block.children:
        [paragraph] = item.children
        texts.append(paragraph.children[0])
    pairs = [_term(text) for text in texts]
    if None not in pairs:
        return "".join(_tagged(*pair) for pair in pairs if pair)
    return "".join(".IP \\(bu 2\n" + _lines(_inline(text)) for text in texts)


def _term(text: Node) -> tuple[str, str] | None:
    """What stands before the first colon, if it is marked words or a number, and the rest."""
    term = ""
    for at, part in enumerate(text.children):
        if part.type == "text":
            before, colon, after = part.content.partition(": ")
            if before.strip(" ,") and not before.isdigit():
                return None
            if colon:
                rest = "".join(_INLINES[each.type](each, "R") for each in text.children[at + 1 :])
                return term + _escaped(before), _escaped(after) + rest
        term += _INLINES[part.type](part, "R")
    return None


def _table(block: Node) -> str:
    """A term for each row: its first cell. Cells between that and the last go with the term."""
    header, body = block.children
    titles = [_inline(cell.children[0]) for cell in header.children[0].children]
    pages = ""
    for row in body.children:
        first, *others, last = (_inline(cell.children[0]) for cell in row.children)
        named = zip(titles[1:-1], others, strict=True)
        pages += _tagged(
            first + "".join(f", {title}: {cell}" for title, cell in named if cell), last
        )
    return pages


def _tagged(term: str, text: str) -> str:
    return f".TP\n{_lines(term)}{_lines(text)}"


def _lines(text: str) -> str:
    """As input lines, none of which is taken for a request."""
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE) + "\n"


_BLOCKS: Final = {
    "heading": _heading,
    "paragraph": _paragraph,
    "fence": _code,
    "bullet_list": _list,
    "table": _table,
}

# What is in a line. `font` is that of the text around.


def _inline(node: Node, font: str = "R") -> str:
    return "".join(_INLINES[part.type](part, font) for part in node.children)


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _text(node: Node, font: str) -> str:
    del font
    return _escaped(node.content)


def _bold_code(node: Node, font: str) -> str:
    return rf"\fB{_escaped(node.content)}\f{font}"


def _bold(node: Node, font: str) -> str:
    return rf"\fB{_inline(node, 'B')}\f{font}"


def _italic(node: Node, font: str) -> str:
    return rf"\fI{_inline(node, 'I')}\f{font}"


def _link(node: Node, font: str) -> str:
    """The text; where else in the project it leads, behind it."""
    text = _inline(node, font)
    path, _, _ = str(node.attrs["href"]).partition("#")
    if re.fullmatch(r"[\w.-]+\.\d\.md", path):
        _man_page(text)
        return text
    target = _escaped(posixpath.normpath(posixpath.join(_PAGES, path)))
    return text if target == text else f"{text} ({target})"


def _line_end(node: Node, font: str) -> str:
    del node, font
    return "\n"


_INLINES: Final = {
    "text": _text,
    "code_inline": _bold_code,
    "strong": _bold,
    "em": _italic,
    "link": _link,
    "softbreak": _line_end,
}
