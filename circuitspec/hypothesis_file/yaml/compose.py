"""YAML events -> nodes with places. Refuses what a data file has no need of: tags, merge keys, alias bombs."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span, in_order, split_lines
from circuitspec.hypothesis_file.yaml.yaml_nodes import YamlNode

MAX_DEPTH = 60
MAX_KEYS = 10_000  # of one mapping: far more than a person writes
MAX_ALIASED = 50_000  # values that aliases may add to those written out
MAX_INTEGER = 2**53 - 1  # beyond it JSON readers, and so digests, disagree

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")
_OTHER_THAN_TEXT = (_NULL, _TRUE, _FALSE, _INTEGER, _BASED, _FLOAT, _INFINITE, _NAN)
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def reads_as_text(plain: str) -> bool:
    """Whether a scalar without quotes is read as text, and not as a number, a truth value or nothing."""
    return not any(pattern.fullmatch(plain) for pattern in _OTHER_THAN_TEXT)


# (pattern in ruamel's words, what is wrong in ours, what to write instead)
_SYNTAX = (
    (
        r"'<stream end>'",
        "the file ends in the middle of a list or mapping",
        "close it with ] or }; the end of the file may have been lost",
    ),
    (r"found character '\\t'", "a tab cannot be used to indent", "indent by spaces"),
    (
        r"found character '[@`%|>&*!]",
        "text cannot start with this character",
        'put the text in quotes, as in at: "@END"',
    ),
    (r"quoted scalar.*unexpected end of stream", "a quoted text is not closed", "add the closing quote"),
    (r"quoted scalar.*unexpected document separator", "a quoted text is not closed", "add the closing quote"),
    (r"unknown escape|escape sequence", "this escape is unknown", r"write \\ for a backslash, or use single quotes"),
    (
        r"mapping values are not allowed",
        "a colon stands where no key can be",
        "put text that holds `: ` in quotes, or mend the indentation",
    ),
    (r"could not find expected ':'", "a key without a colon", "write key: value"),
    (
        r"expected ',' or '\]'",
        "a list is not closed, or an entry holds a bracket",
        'close it with ], and put names with brackets in quotes, as in ["a[0-5].h*"]',
    ),
    (
        r"expected ',' or '\}'",
        "a mapping is not closed, or a value holds a brace",
        'close it with }, and put text with braces in quotes, as in "{IO}"',
    ),
    (
        r"expected <block end>",
        "this line fits neither the block above it nor the one around it",
        "mend the indentation, and put values that start with a quote, bracket or brace wholly in quotes",
    ),
    (r"expected alphabetic or numeric", "a name is missing after & or *", "put text that starts with * or & in quotes"),
)


@dataclass
class _Open:
    """A list or mapping whose end has not been read yet."""

    start: Event
    is_mapping: bool
    anchor: str | None
    items: list[YamlNode] = field(default_factory=list)
    entries: dict[str, tuple[YamlNode, YamlNode]] = field(default_factory=dict)
    key: YamlNode | None = None
    merged: list[YamlNode] = field(default_factory=list)
    size: int = 1


@dataclass
class _Composer:
    """Collects events into nodes with a stack of its own, so that depth never meets Python's limit."""

    file: str
    lines: tuple[str, ...]
    findings: list[Diagnostic] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[YamlNode, int]] = field(default_factory=dict)
    aliased: int = 0
    root: YamlNode | None = None
    last: Event | None = None

    def span(self, start: StringMark, end: StringMark) -> Span:
        if end.line == start.line:
            return Span(self.file, start.line + 1, start.column + 1, end.column + 1)
        return Span(self.file, start.line + 1, start.column + 1)

    def fail(self, code: str, message: str, span: Span, label: str = "", hint: str = "") -> CircuitspecError:
        return CircuitspecError(*in_order([*self.findings, Diagnostic(code, message, span, label, hint)]))

    def note(self, code: str, message: str, span: Span, label: str = "", hint: str = "") -> None:
        self.findings.append(Diagnostic(code, message, span, label, hint))

    def take(self, event: Event) -> None:
        self.last = event
        span = self.span(event.start_mark, event.end_mark)
        if isinstance(event, DocumentStartEvent):
            self.start_document(event, span)
        elif isinstance(event, AliasEvent):
            self.alias(event.anchor, span)
        elif isinstance(event, ScalarEvent):
            self.refuse_tag(event, span)
            self.add(self.scalar(event, span), event.anchor, 1)
        elif isinstance(event, (SequenceStartEvent, MappingStartEvent)):
            self.refuse_tag(event, span)
            if len(self.stack) == MAX_DEPTH:
                raise self.fail("CS108", f"lists and mappings are nested more than {MAX_DEPTH} deep", span)
            self.stack.append(_Open(event, isinstance(event, MappingStartEvent), event.anchor))
        elif isinstance(event, (SequenceEndEvent, MappingEndEvent)):
            self.close(event)

    def start_document(self, event: DocumentStartEvent, span: Span) -> None:
        if self.root is not None:
            raise self.fail(
                "CS119", "a second document starts here", span, hint="one file holds one hypothesis: remove the ---"
            )
        if event.version is not None and tuple(event.version) != (1, 2):
            self.note("CS104", "the file declares another YAML version", span, hint="write %YAML 1.2, or nothing")

    def refuse_tag(self, event: ScalarEvent | SequenceStartEvent | MappingStartEvent, span: Span) -> None:
        if event.ctag is not None:
            tag = re.split(r"[\s,\]}]", self.lines[span.line - 1][span.column - 1 :])[0]
            self.note(
                "CS106",
                f"the tag {tag} is refused: a hypothesis is plain data",
                Span(span.file, span.line, span.column, span.column + len(tag)),
                hint="remove the tag; put text that looks like a number in quotes",
            )

    def scalar(self, event: ScalarEvent, span: Span) -> YamlNode:
        text, plain = str(event.value), event.style is None
        if _SURROGATE.search(text):
            self.note("CS118", "the escape stands for no character", span, hint="write the character itself")
            text = _SURROGATE.sub("\ufffd", text)
        return YamlNode(span, self.resolve(text, span) if plain else text, text)

    def resolve(self, text: str, span: Span) -> object:
        """A plain scalar by YAML 1.2's core schema (ruamel's own resolver also takes dates and 1_000)."""
        if _NULL.fullmatch(text):
            return None
        if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
            return text.lower() == "true"
        if _INTEGER.fullmatch(text) or _BASED.fullmatch(text):
            number = _integer(text)
            if number is not None and abs(number) <= MAX_INTEGER:
                return number
            self.note(
                "CS115", "the number is too large", span, label=f"at most {MAX_INTEGER}", hint="put text in quotes"
            )
            return 0
        if _FLOAT.fullmatch(text):
            return float(text)
        if match := _INFINITE.fullmatch(text):
            return -math.inf if match[1] == "-" else math.inf
        return math.nan if _NAN.fullmatch(text) else text

    def alias(self, anchor: str, span: Span) -> None:
        if any(block.anchor == anchor for block in self.stack):
            raise self.fail("CS107", f"*{anchor} stands inside what it refers to", span, hint="write the value out")
        if anchor not in self.anchors:
            raise self.fail(
                "CS107",
                f"*{anchor} refers to nothing",
                span,
                label=f"no &{anchor} stands above",
                hint="put text that starts with * in quotes",
            )
        node, size = self.anchors[anchor]
        self.aliased += size
        if self.aliased > MAX_ALIASED:
            raise self.fail(
                "CS107",
                f"aliases repeat more than {MAX_ALIASED} values",
                span,
                hint="write the values out, or in a file",
            )
        self.add(node, None, size)

    def close(self, event: Event) -> None:
        block = self.stack.pop()
        for node in block.merged:
            block.entries = {**node.entries, **block.entries}
        span = self.span(block.start.start_mark, event.end_mark)
        node = (
            YamlNode(span, {key: value.value for key, (_, value) in block.entries.items()}, entries=block.entries)
            if block.is_mapping
            else YamlNode(span, [item.value for item in block.items], items=tuple(block.items))
        )
        self.add(node, block.anchor, block.size)

    def add(self, node: YamlNode, anchor: str | None, size: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = (node, size)
        if not self.stack:
            self.root = node
            return
        block = self.stack[-1]
        block.size += size
        if not block.is_mapping:
            block.items.append(node)
        elif block.key is None:
            block.key = node
        else:
            self.enter(block, block.key, node)
            block.key = None

    def enter(self, block: _Open, key: YamlNode, value: YamlNode) -> None:
        """Put an entry into a mapping. A key that is refused is kept where it can be, to judge the rest by."""
        if key.value == "<<" and self.lines[key.span.line - 1].startswith("<<", key.span.column - 1):
            self.note("CS109", "merge keys (<<) are not part of YAML 1.2", key.span, hint="write the keys out")
            block.merged.append(value)
            return
        if not isinstance(key.value, str):
            shown, hint = key.text or "this", f'put it in quotes: "{key.text}"' if key.text else "write key: value"
            self.note("CS109", f"{shown} is not text, and so cannot be a key", key.span, hint=hint)
        if value.text == "" and value.value is None and value.span.line > key.span.line:
            # the parser places an absent value where the next thing starts; it belongs after its key's colon
            column = (key.span.end_column or key.span.column) + 1
            value = replace(value, span=Span(self.file, key.span.line, column, column))
        if len(block.entries) == MAX_KEYS:
            raise self.fail(
                "CS171",
                f"a mapping holds more than {MAX_KEYS} keys",
                key.span,
                label=f"the mapping starts on line {block.start.start_mark.line + 1}",
                hint="put tables into a .csv file, and prompts into a .jsonl file",
            )
        name = key.value if isinstance(key.value, str) else key.text
        if name in block.entries:
            label = f"first given on line {block.entries[name][0].span.line}"
            self.note("CS105", f"the key {name} is given twice", key.span, label, "keep one of them")
        elif name or isinstance(key.value, str):
            block.entries[name] = (key, value)


def compose(text: str, file: str) -> tuple[YamlNode, tuple[Diagnostic, ...]]:
    """The root node of the only document in `text`, and findings that did not stop the reading.

    Raises CircuitspecError where the text cannot be read as YAML at all.
    """
    lines = split_lines(text)
    _refuse_control_characters(text, file)
    composer = _Composer(file, lines)
    try:
        for event in _events(text):
            composer.take(event)
    except MarkedYAMLError as error:
        raise _syntax_error(composer, error) from None
    except (YAMLError, ValueError, OverflowError) as error:  # \U escapes beyond Unicode end in the latter two
        raise composer.fail("CS104", f"this is not valid YAML: {error}", Span(file, 1, 1)) from None
    if composer.root is None or (composer.root.value is None and not composer.findings):
        raise composer.fail(
            "CS103", "the file holds no data", Span(file, 1, 1), hint="circuitspec init writes a file to start from"
        )
    return composer.root, tuple(composer.findings)


def _events(text: str) -> Iterator[Event]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the YAML version declared, which is judged in `start_document`
        yield from YAML(typ="safe", pure=True).parse(text)


def _integer(text: str) -> int | None:
    """None where the digits are so many that no limit can allow the number."""
    if len(text) > 40:
        return None
    return int(text, 0) if text.startswith("0") and not text.isdigit() else int(text)


def _refuse_control_characters(text: str, file: str) -> None:
    match = _UNPRINTABLE.search(text)
    if match is not None:
        before = split_lines(text[: match.start()])
        raise CircuitspecError(
            Diagnostic(
                "CS118",
                "the file holds a character that YAML does not allow",
                Span(file, len(before), len(before[-1]) + 1),
                label=f"U+{ord(match[0]):04X}",
                hint=f'remove it, or write it as an escape in double quotes: "{_escape(match[0])}"',
            )
        )


def _escape(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def _syntax_error(composer: _Composer, error: MarkedYAMLError) -> CircuitspecError:
    mark = error.problem_mark or error.context_mark
    context, problem = error.context or "", error.problem or "unreadable"
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    said = _after_last_value(composer.last, line - 1) if "expected <block end>" in problem else None
    if "expected ',' or" in problem and isinstance(composer.last, (SequenceEndEvent, MappingEndEvent)):
        said = _after_last_value(composer.last, line - 1)
    label = ""
    if said is None:
        known = ((text, hint) for pattern, text, hint in _SYNTAX if re.search(pattern, f"{context} {problem}"))
        said = next(known, (f"this is not valid YAML: {problem}", ""))
        if error.context_mark is not None and error.context_mark.line + 1 != line:
            label = f"the part that it stands in starts on line {error.context_mark.line + 1}"
    return composer.fail("CS104", said[0], Span(composer.file, line, column), label, said[1])


def _after_last_value(last: Event | None, line: int) -> tuple[str, str] | None:
    """What is wrong where text follows a value that was complete: (message, hint)."""
    if last is None or last.end_mark.line != line:
        return None
    if isinstance(last, (SequenceEndEvent, MappingEndEvent)) and last.end_mark.column > last.start_mark.column:
        return "text follows a closing bracket or brace", 'put text that starts with one in quotes: "{IO} went to"'
    start = last.start_mark.line
    if isinstance(last, ScalarEvent) and last.style in ("'", '"') and start < line:
        return (
            f"text follows a quoted text that starts on line {start + 1}",
            f"the closing quote on line {start + 1} may be missing",
        )
    return None
