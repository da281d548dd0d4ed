"""The claim card in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

from kfpbench.claim.card import SENTENCE, SOURCE, Card
from kfpbench.claim.verdict import FAILS, HOLDS, Part
from kfpbench.claim.wording import number_text
from kfpbench.report.terminal import print_line

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {HOLDS: "green", FAILS: "red"}
_VERDICT_WIDTH = 24
_PIPED_WIDTH = 120


def render_card(card: Card, console: Console) -> None:
    """Print the card: a block per spectral sampler with a line per part, then conditions and limits.

    Plain text where the output is no terminal; colour is never the only sign.
    """
    width = console.width if console.is_terminal else _PIPED_WIDTH
    print_line(console, "")
    print_line(console, f"Claim: {SENTENCE}", style="bold")
    print_line(console, SOURCE, style="dim")
    for answer in card.answers:
        print_line(console, "")
        print_line(console, answer.label, style="bold")
        for number, part in enumerate(answer.parts, start=1):
            line = f"{part.verdict:<{_VERDICT_WIDTH}}{number}. {part.title}"
            print_line(console, line, _STYLES.get(part.verdict, "yellow"))
            for text in _about(part):
                _indented(console, text, width, " " * _VERDICT_WIDTH + "   ")
    print_line(console, "")
    for name, text in card.conditions.items():
        _indented(console, f"{name}: {text}", width, "", "  ")
    for text in card.limits:
        _indented(console, f"- {text}", width, "", "  ")


def _about(part: Part) -> Iterator[str]:
    if part.number is not None:
        yield number_text(part.number)
    yield f"rule: {part.rule}"
    if part.reason:
        yield f"why: {part.reason}"
    for note in part.notes:
        yield f"note: {note}"


def _indented(console: Console, text: str, width: int, indent: str, further: str | None = None) -> None:
    room = max(width, len(indent) + 40)
    following = indent if further is None else indent + further
    for line in wrap(text, room, initial_indent=indent, subsequent_indent=following):
        print_line(console, line, style="dim" if further is None else "")
