"""Make short questions and answers out of the names and first sentences of documentation."""

import re
import zlib
from dataclasses import dataclass

from .prose import split_sentences

MAX_ANSWER = 320
MIN_ANSWER = 30
_QUESTIONS: dict[str, tuple[str, ...]] = {
    "function": ("What does {name} do?", "What is {name} for?", "Explain {name}.", "How does {name} work?"),
    "method": ("What does the {short} method of {owner} do?", "What does {owner}.{short} do?"),
    "class": ("What is {name}?", "What is the {short} class for?", "Explain the {name} class."),
    "module": (
        "What is the {name} module for?",
        "What does the {name} module do?",
        "Tell me about the {name} module.",
    ),
    "topic": ("Explain {title}.", "What should I know about {title}?", "Tell me about {title}."),
}
_SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello!", "Hello", "Hi", "Hi there", "Hey", "Good morning", "Good evening", "Hello, how are you?"),
        "Hello! I am a small demo model. Ask me something about Python.",
    ),
    (
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Are you a person?",
            "Tell me about yourself.",
        ),
        "I am a small demo model. I learned English from the documentation of Python, so I know very little else.",
    ),
    (
        ("What can you do?", "How can you help me?", "Can you help me?", "What do you know?"),
        "I can continue a sentence and answer short questions about Python. My answers are often wrong.",
    ),
    (
        ("Thank you!", "Thank you", "Thanks", "Thanks a lot!", "That was helpful."),
        "You are welcome. Ask me something else if you like.",
    ),
    (("Goodbye", "Bye", "Goodbye!", "See you later."), "Goodbye! Come back when you have another question."),
)


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: str
    text: str


def _title(raw: str) -> str:
    """Return the heading of a help topic, written so that it fits into a question."""
    heading = raw.strip().split("\n", 1)[0].replace('"', "").strip()
    if not re.fullmatch(r"[A-Za-z][A-Za-z .,'-]+", heading):
        return ""
    article = "" if heading.startswith(("The ", "A ")) or heading.split()[-1].endswith("s") else "the "
    return article + " ".join(word if word.isupper() else word.lower() for word in heading.split())


def _is_public(name: str) -> bool:
    """Tell whether no part of a dotted name is private."""
    return not any(part.startswith("_") for part in name.split("."))


def _answer(found: list[str], kind: str) -> str:
    """Return the first sentences that fit an answer; topics may use more than one paragraph's worth."""
    answer = ""
    for sentence in split_sentences(found[0] if kind != "topic" else " ".join(found[:2])):
        if answer and len(answer) + len(sentence) > MAX_ANSWER:
            break
        answer = f"{answer} {sentence}".strip()
    return answer


def dialogue_for(name: str, kind: str, raw: str, found: list[str]) -> tuple[Turn, ...]:
    """Return a question about one documented thing with its answer, or nothing if none fits."""
    if kind not in _QUESTIONS or not found or not _is_public(name):
        return ()
    # Only a docstring whose very first words survived the cleaning starts with a description.
    first_word = re.sub(r"\W", "", raw.split()[0]) if raw.split() else ""
    if kind != "topic" and first_word != re.sub(r"\W", "", found[0].split()[0]):
        return ()
    answer = _answer(found, kind)
    title = _title(raw) if kind == "topic" else ""
    if not MIN_ANSWER <= len(answer) <= 2 * MAX_ANSWER or (kind == "topic" and not title):
        return ()
    parts = name.split(".")
    owner = parts[-2] if len(parts) > 1 else name
    forms = _QUESTIONS[kind]
    form = forms[zlib.crc32(name.encode()) % len(forms)]
    question = form.format(name=name, short=parts[-1], owner=owner, title=title)
    return (Turn("user", question), Turn("assistant", answer))


def small_talk() -> tuple[tuple[Turn, ...], ...]:
    """Return the few greetings that were written for this project, not taken from Python's text."""
    return tuple(
        (Turn("user", question), Turn("assistant", answer))
        for questions, answer in _SMALL_TALK
        for question in questions
    )
