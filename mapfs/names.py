"""Names of files as they can be shown: whatever bytes they are made of."""

import os


def printable(name: str) -> str:
    r"""A name in one line that does nothing to a terminal.

    Bytes that are no UTF-8, control characters, and those that change the direction of text,
    become escapes like `\xff`, `\n` and `\u202e`.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def field_of(name: str) -> str:
    r"""A name as a field between tabs, to be read by programs: `\x09` for a tab.

    As lsblk(8) and findmnt(8) write it: every byte of a control character, of a backslash, and of
    what is no UTF-8 is `\x` with two digits.
    """
    return "".join(
        each if each.isprintable() and each != "\\" else _hexadecimal(each) for each in name
    )


def _hexadecimal(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
