"""A command line in one text, as a Compose file may have it, → its words.

Compose splits with a Go library (github.com/mattn/go-shellwords) that treats some characters unlike a shell: it ends at
an unquoted ``;`` and drops the rest. What the two read differently is refused, so that the words are what both mean.
"""

from __future__ import annotations

_SPACE = " \t\r\n"
_OF_A_SHELL = ";&|<>()`"


class WordsUnclear(Exception):
    """The text has something that shells and Compose read differently; the message says what."""


def shell_words(text: str) -> list[str]:
    """The words of ``text``. Raises WordsUnclear."""
    words: list[str] = []
    word: str | None = None  # None between words; quotes make even nothing a word
    quote = ""
    for character in text:
        if character == "\\" and quote != "'":
            raise WordsUnclear("has a backslash")
        if quote:
            if character == quote:
                quote = ""
            elif character == "`" and quote == '"':
                raise WordsUnclear("has a backquote, which runs a program in a shell")
            else:
                word = (word or "") + character
        elif character in "'\"":
            quote, word = character, word or ""
        elif character in _SPACE:
            if word is not None:
                words.append(word)
            word = None
        elif character in _OF_A_SHELL:
            raise WordsUnclear(f"has an unquoted `{character}`, and no shell reads it")
        else:
            word = (word or "") + character
    if quote:
        raise WordsUnclear(f"has a {quote} without its end")
    return words if word is None else [*words, word]
