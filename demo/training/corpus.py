"""Build the training text of the demo model from English that ships with the CPython interpreter.

The sources are the help topics (pydoc_data), the docstrings and longer comments of the standard library,
the docstrings of built-in modules, and the Zen of Python. Short questions and answers are made from them.
The result depends only on the interpreter's own files, so one Python release always gives the same text.

Print its size and hash with: python -m demo.training.corpus
"""

import ast
import codecs
import contextlib
import hashlib
import importlib
import inspect
import io
import re
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from .dialogues import Turn, dialogue_for, small_talk
from .prose import paragraphs, split_sentences

SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "__pycache__", "lib-dynload", "turtledemo", "pydoc_data"}
)
SKIPPED_FILES = frozenset({"this.py", "antigravity.py", "__hello__.py"})
_BUILT_IN = (
    "builtins array atexit binascii cmath errno faulthandler fcntl gc itertools marshal math mmap posix pwd "
    "resource select sys time unicodedata zlib _bisect _codecs _collections _csv _datetime _decimal "
    "_functools _heapq _io _operator _pickle _random _socket _sqlite3 _sre _ssl _struct _thread _weakref _asyncio"
)
BUILT_IN_MODULES = tuple(_BUILT_IN.split())
MIN_COMMENT_LINES = 2
PUBLIC_NAMES = {"posixpath": "os.path", "genericpath": "os.path", "_pydecimal": "decimal", "_pyio": "io"}


@dataclass(frozen=True)
class Text:
    """One documented thing: its dotted name, what kind of thing it is, and its raw documentation."""

    name: str
    kind: str
    raw: str


@dataclass(frozen=True)
class Corpus:
    """The finished training text: prose documents and dialogues, each in a fixed order."""

    documents: tuple[str, ...]
    dialogues: tuple[tuple[Turn, ...], ...]

    def digest(self) -> str:
        """Return a SHA-256 over all of the text."""
        parts = [*self.documents, *(f"{turn.role}\0{turn.text}" for talk in self.dialogues for turn in talk)]
        return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()

    def texts(self) -> list[str]:
        """Return every document and every dialogue turn as plain text."""
        return [*self.documents, *(turn.text for talk in self.dialogues for turn in talk)]


def library_files(root: Path) -> list[Path]:
    """List the standard library's own source files, without tests, in sorted order."""
    files = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        skipped = set(relative.parts[:-1]) & SKIPPED_FOLDERS or relative.name in SKIPPED_FILES
        if not skipped and not relative.parts[0].startswith(("config-", "_sysconfigdata")):
            files.append(path)
    return files


def _docstrings(tree: ast.Module, module: str) -> Iterator[Text]:
    """Yield the docstrings of a module, its classes and its functions, in source order."""

    def visit(node: ast.AST, name: str, inside: str) -> Iterator[Text]:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            kind = "module" if isinstance(node, ast.Module) else inside
            kind = "class" if isinstance(node, ast.ClassDef) else kind
            doc = ast.get_docstring(node)
            if doc:
                yield Text(name, kind, doc)
            inside = "method" if kind == "class" else "function"
        for child in ast.iter_child_nodes(node):
            child_name = f"{name}.{child.name}" if hasattr(child, "name") and child.name else name
            yield from visit(child, child_name, inside)

    yield from visit(tree, module, "function")


def _comments(source: str, module: str) -> Iterator[Text]:
    """Yield runs of whole-line comments as one text each."""
    run: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.line[: token.start[1]].strip():
            continue
        if token.start[0] != last + 1:
            if len(run) >= MIN_COMMENT_LINES:
                yield Text(module, "comment", "\n".join(run))
            run = []
        run.append(token.string.lstrip("#!:").removeprefix(" "))
        last = token.start[0]
    if len(run) >= MIN_COMMENT_LINES:
        yield Text(module, "comment", "\n".join(run))


def _library_texts() -> Iterator[list[Text]]:
    """Yield, for each library file, its docstrings and comments."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in library_files(root):
        relative = path.relative_to(root).with_suffix("")
        module = ".".join(part for part in relative.parts if part != "__init__")
        module = PUBLIC_NAMES.get(module, module)
        with contextlib.suppress(SyntaxError, UnicodeDecodeError, tokenize.TokenError):
            with tokenize.open(path) as file:
                source = file.read()
            yield [*_docstrings(ast.parse(source), module), *_comments(source, module)]


def _built_in_texts() -> Iterator[list[Text]]:
    """Yield the docstrings of modules written in C, which have no source file to read."""
    for module_name in BUILT_IN_MODULES:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        public = module_name.lstrip("_")
        texts = [Text(public, "module", inspect.getdoc(module) or "")]
        for name, value in sorted(vars(module).items()):
            if name.startswith("_") or not (isinstance(value, type) or inspect.isbuiltin(value)):
                continue
            kind = "class" if isinstance(value, type) else "function"
            full = name if public == "builtins" else f"{public}.{name}"
            texts.append(Text(full, kind, inspect.cleandoc(value.__doc__ or "")))
            if isinstance(value, type):
                for attribute, member in sorted(vars(value).items()):
                    doc = getattr(member, "__doc__", None)
                    if callable(member) and isinstance(doc, str) and not attribute.startswith("_"):
                        texts.append(Text(f"{full}.{attribute}", "method", inspect.cleandoc(doc)))
        yield texts


def _zen() -> str:
    """Return the Zen of Python, which its module stores in ROT13."""
    source = (Path(sysconfig.get_paths()["stdlib"]) / "this.py").read_text(encoding="utf-8")
    value = ast.literal_eval(re.sub(r'^s = (""".*?""").*$', r"\1", source, flags=re.DOTALL))
    lines = codecs.decode(value, "rot13").split("\n")
    return " ".join(line for line in lines[2:] if line)


def _groups() -> Iterator[list[Text]]:
    """Yield all sources as groups; each group becomes one document."""
    for name, raw in sorted(topics.items()):
        yield [Text(name, "topic", raw)]
    yield from _built_in_texts()
    yield from _library_texts()


def build_corpus() -> Corpus:
    """Read every source, clean it, drop repeated sentences, and make the dialogues."""
    documents: list[str] = []
    talks: list[tuple[Turn, ...]] = []
    seen: set[str] = set()
    asked: set[str] = set()
    for group in _groups():
        kept: list[str] = []
        for text in group:
            found = paragraphs(text.raw)
            talk = dialogue_for(text.name, text.kind, text.raw, found)
            if talk and talk[0].text not in asked:
                asked.add(talk[0].text)
                talks.append(talk)
            for paragraph in found:
                fresh = [sentence for sentence in split_sentences(paragraph) if sentence.lower() not in seen]
                seen.update(sentence.lower() for sentence in fresh)
                if fresh:
                    kept.append(" ".join(fresh))
        if kept:
            documents.append("\n".join(kept))
    documents.append(_zen())
    return Corpus(tuple(documents), (*talks, *small_talk()))


def main() -> None:
    """Print what the corpus holds."""
    corpus = build_corpus()
    print(f"documents: {len(corpus.documents)}, characters: {sum(map(len, corpus.documents))}")
    turns = [turn for talk in corpus.dialogues for turn in talk]
    print(f"dialogues: {len(corpus.dialogues)}, characters: {sum(len(turn.text) for turn in turns)}")
    print(f"sha256: {corpus.digest()}")


if __name__ == "__main__":
    main()
