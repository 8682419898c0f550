"""Turn documentation source (docstrings, comments, help topics) into plain English sentences.

Everything that is not prose, such as tables, grammar rules, doctests and code, is dropped.
"""

import re

_COMMON = (
    "a an the this that these those it its if is are was be been can may will should must not no of to in on "
    "for from by with as at and or but when which who where how than then so does do has have all any each "
    "into only other used use between after before because while"
)
FUNCTION_WORDS = frozenset(_COMMON.split())

_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r":[a-z:+-]+:`([^`]*)`"), r"\1"),
    (re.compile(r"`([^`<]*?)\s*<[^>`]*>`_{0,2}"), r"\1"),
    (re.compile(r"``(.+?)``"), r"\1"),
    (re.compile(r"`([^`\n]+)[`']_?"), r"\1"),
    (re.compile(r"\*\*(\w[^*\n]*)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*(\w[^*\n]*?)\*(?!\w)"), r"\1"),
    (re.compile(r"[\u2018']\"([^\"]*)\"[\u2019']"), r'"\1"'),
    (re.compile(r"\"([\w.]+(?:\(\))?)\""), r"\1"),
    (re.compile(r"\[\d+\]_?"), ""),
    (re.compile(r"\((?:see|See|cf\.?|Contributed)\b[^()]*\)"), ""),
    (re.compile(r"::(?=\s|$)"), ":"),
    (re.compile(r"\b([ei])\.\s?([ge])\.,?"), r"\1.\2."),
    (re.compile(r"\s--+\s"), " - "),
)
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "...", "\u2014": "-"})
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Mr|Dr|resp|approx|incl|Jr|St|No|[A-Z]))\.$")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]?[A-Z_])")
_PLAIN_WORD = re.compile(r"^[\"'(]*[A-Za-z]+(?:[-'/][A-Za-z]+)*[\"')]*[.,;:!?]*[\"')]*$")
_UNWANTED = re.compile(
    r"https?:|www\.|copyright|warrant|licen[sc]e|XXX|FIXME|TODO|>>>|\.\.\.|[{}<>|=\\~^#$%+*@`]"
    r"|\[|\]|--|\b(?:[Bb]ug|[Ii]ssue|SF|bpo|gh-|RFC|PEP|[Pp]atch)\W*\d|\d\d+\.\d|\(\)\s*:|\w\([^)]*,"
    r"|Changed in version|New in version|noqa|pylint|type: ignore|^See (?:also )?\S+\.$|\s[.,:;]"
    r"|\b(?:to|is|are|like|as|with|by|of|follows|the|a|an|and|or|for|in|on)\.$",
    re.IGNORECASE,
)
_LIST_ITEM = re.compile(r"^\s*(?:[-*+o\u2022]|\(?\d+[.)]|\(?[a-z]\))\s+")
_RULE = re.compile(r"^\s*([-=*~^_#+.|])\1{2,}\s*$")
_CODE_LINE = re.compile(
    r"^\s*(?:>>>|\.\.\. |\.\. |[$%|+] ?|@\w|:\w+[^:]*:|#|\w[\w.\[\]]* ::?= |import |from \w+ import |def "
    r"|class \w+[(:])"
)


def clean_markup(text: str) -> str:
    """Remove reStructuredText and Markdown markers, keeping the words between them."""
    text = text.translate(_QUOTES)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    text = re.sub(r"\s+", " ", text)
    return re.sub(r"\s+([.,;:!?)])(?=\s|$)", r"\1", text).strip()


def split_sentences(text: str) -> list[str]:
    """Split a paragraph at sentence ends, leaving abbreviations such as "e.g." whole."""
    sentences: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        piece = text[start : match.start()]
        if _ABBREVIATION.search(piece):
            continue
        sentences.append(text[start : match.end()].strip())
        start = match.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def is_prose(sentence: str) -> bool:
    """Tell whether a sentence reads as English: a capital, a full stop, and mostly ordinary words."""
    words = sentence.split()
    if not 4 <= len(words) <= 60 or not re.match(r"[\"'(]?[A-Z]", sentence):
        return False
    if not re.search(r"[a-z0-9)\"'][.!?][\"')]*$", sentence) or _UNWANTED.search(sentence):
        return False
    if not sentence.isascii() or sentence.count("(") != sentence.count(")") or sentence.count('"') % 2:
        return False
    plain = sum(1 for word in words if _PLAIN_WORD.match(word))
    common = sum(1 for word in words if word.lower().strip(".,;:!?()\"'") in FUNCTION_WORDS)
    shouted = sum(1 for word in words if len(word) > 2 and word.isalpha() and word.isupper())
    return plain >= 0.8 * len(words) and common >= 0.2 * len(words) and shouted <= 0.25 * len(words)


def _blocks(text: str) -> list[list[str]]:
    """Group lines into paragraphs; blank lines, rules, list items and changes of indent end one."""
    blocks: list[list[str]] = []
    current: list[str] = []
    indent = 0
    for line in [*text.expandtabs().split("\n"), ""]:
        depth = len(line) - len(line.lstrip())
        item = bool(_LIST_ITEM.match(line))
        if not line.strip() or _RULE.match(line):
            blocks.append([] if _RULE.match(line) else current)
            current = []
            continue
        if current and (item or (depth != indent and not (len(current) == 1 and _LIST_ITEM.match(current[0])))):
            blocks.append(current)
            current = []
        current.append(line)
        indent = depth
    return [block for block in blocks if block]


def _join(block: list[str]) -> str:
    """Join the lines of one paragraph into one cleaned line that ends a sentence."""
    lines = [_LIST_ITEM.sub("", block[0]), *block[1:]]
    text = clean_markup(re.sub(r"(?<=[a-z]-) (?=[a-z])", "", " ".join(line.strip() for line in lines)))
    text = re.sub(r"^(?:Note|NOTE|Hint|Warning|CAUTION|Caution)\s*:\s*", "", text)
    if text and text[0].islower() and " " in text and _LIST_ITEM.match(block[0]):
        text = text[0].upper() + text[1:]
    if text and text[-1] in ":;,":
        text = text[:-1] + "." if len(text.split()) > 6 else ""
    return text + "." if text and text[-1].isalnum() else text


def paragraphs(text: str) -> list[str]:
    """Return the readable paragraphs of a documentation text, one line each."""
    found: list[str] = []
    for block in _blocks(text):
        if any(_CODE_LINE.match(line) for line in block):
            continue
        sentences = [sentence for sentence in split_sentences(_join(block)) if is_prose(sentence)]
        if sentences:
            found.append(" ".join(sentences))
    return found
