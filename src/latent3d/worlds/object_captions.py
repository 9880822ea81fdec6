"""Sentences that say truly what an object is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FEW = 2
"""Facts about parts in a caption of the usual length."""


@dataclass(frozen=True)
class Words:
    """What can be said about an object.

    Attributes:
        noun: "armchair"; holds the name of the family.
        look: what comes before the noun: "red wooden".
        colour: the main colour alone.
        details: facts about parts, the most telling first: "four tapered legs".
        aliases: other names of the same thing, without the family's: "desk".
        phrases: for objects without a name of their own: each says all about it, and stands for look and details.
    """

    noun: str
    look: str
    colour: str
    details: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()

    def captions(self) -> tuple[str, ...]:
        """Different sentences, the main one first, then a full one, then shorter ones down to the bare noun."""
        if self.phrases:
            sentences = [f"{with_article(self.noun)} of {phrase}" for phrase in self.phrases]
            sentences += [f"{with_article(self.noun)} in {self.colour}", *self.phrases]
        else:
            named = f"{self.look} {self.noun}"
            few = self.details[:FEW]
            sentences = [described(named, few), described(named, self.details)]
            sentences += [described(f"{self.look} {alias}", few) for alias in self.aliases]
            sentences += [described(named, [fact]) for fact in self.details[: FEW + 1]]
            sentences += [described(self.noun, few), with_article(named), with_article(f"{self.colour} {self.noun}")]
            sentences += [with_article(f"{self.colour} {alias}") for alias in self.aliases]
        return tuple(dict.fromkeys([*sentences, with_article(self.noun)]))


def with_article(words: str) -> str:
    """Words after "a" or "an", by their first letter."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def listed(words: Sequence[str]) -> str:
    """Words as "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def described(named: str, details: Sequence[str]) -> str:
    """A named thing with its details."""
    return f"{with_article(named)} with {listed(details)}" if details else with_article(named)
