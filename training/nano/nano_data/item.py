"""What a question is before it is written as a conversation, and how questions are split."""

import dataclasses
import hashlib

EFFORTS = ("low", "medium", "high")
HELD_OUT_SHARE = 10  # one key of so many is never trained on


@dataclasses.dataclass
class Call:
    """A tool call and what comes back. Functions have arguments, python has code."""
    recipient: str
    result: str
    arguments: dict | None = None
    code: str | None = None


@dataclasses.dataclass
class Item:
    family: str
    key: str  # what is asked, whatever the wording that training may vary; decides the split
    question: str
    answer: str
    thoughts: tuple[str, str, str]  # reasoning at low, medium, high effort; "": none
    hard: bool = False  # made for telling efforts apart: low effort may fail here
    match: str = "text"  # how an answer is judged: "text" (exactly) or "json" (same value)
    calls: list[Call] = dataclasses.field(default_factory=list)
    developer: dict | None = None  # developer_content without its type
    identity: str | None = None  # first line of the system message
    always_trained: bool = False  # never held out: without it, what it asks could not be known
    python: bool = False  # the system message declares the python tool
    history: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)  # earlier question, thought, answer

    def thought(self, effort):
        return self.thoughts[EFFORTS.index(effort)]


def is_held_out(item):
    if item.always_trained:
        return False
    digest = hashlib.sha256(f"{item.family}\0{item.key}".encode()).digest()
    return digest[0] * 256 + digest[1] < 65536 // HELD_OUT_SHARE


class Form(str):
    """One wording of a question. The first wording is always trained: the others are then known by it."""
    first = False


def pick(rng, forms, *values, **named):
    """A wording of a question, filled in."""
    i = rng.randrange(len(forms))
    form = Form(forms[i].format(*values, **named))
    form.first = i == 0
    return form


def same(thought):
    """One reasoning for every effort that has one: none at low."""
    return ("", thought, thought)
