"""Which metrics and labels a PromQL expression asks for, as far as ours go: no subqueries, no `group_left`."""

from __future__ import annotations

import re
from dataclasses import dataclass

WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "bool", "offset"}
TOKEN = re.compile(
    r'(?P<text>"[^"]*")|(?P<range>\[\w+\])|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<number>[0-9.]+\w*)|(?P<sign>[^\s\w])'
)
PAIRS = {")": "(", "}": "{", "]": "["}


@dataclass(frozen=True)
class Selector:
    """One series that is asked for, with the labels that it is chosen or grouped by."""

    metric: str
    labels: frozenset[str]


def selectors_of(expression: str) -> list[Selector]:
    """Every series of an expression, in order. Labels of a grouping belong to what its parentheses hold."""
    tokens = list(TOKEN.finditer(expression))
    texts = [match.group() for match in tokens]
    found: list[Selector] = []
    groups: list[frozenset[str]] = [frozenset()]
    pending: frozenset[str] = frozenset()
    index = 0
    while index < len(texts):
        text, following = texts[index], texts[index + 1] if index + 1 < len(texts) else ""
        if text in ("by", "without") and following == "(":
            end = texts.index(")", index)
            pending = frozenset(name for name in texts[index + 2 : end] if name != ",")
            index = end + 1
            continue
        if text == "(":
            groups.append(groups[-1] | pending)
            pending = frozenset()
        elif text == ")" and len(groups) > 1:
            groups.pop()
        elif tokens[index].lastgroup == "name" and text not in WORDS and following not in ("(", "by"):
            labels: set[str] = set()
            if following == "{":
                end = texts.index("}", index)
                inside = tokens[index + 2 : end]
                labels = {each.group() for each in inside if each.lastgroup == "name"}
                index = end
            found.append(Selector(text, groups[-1] | labels))
        index += 1
    return found


def unbalanced(expression: str) -> bool:
    """Whether a parenthesis, brace, bracket or quote is left open, or closed twice."""
    bare = re.sub(r'"[^"]*"', "", expression)
    if '"' in bare:
        return True
    open_ones: list[str] = []
    for sign in bare:
        if sign in PAIRS.values():
            open_ones.append(sign)
        elif sign in PAIRS and (not open_ones or open_ones.pop() != PAIRS[sign]):
            return True
    return bool(open_ones)
