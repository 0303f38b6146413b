"""Whether paths can exist at the token positions of the prompts, where roles alone do not tell. Imports no torch.

A query and an MLP read where they are, a key or value at a token before (or at) a position of the head that uses it,
and the logits at the last token. What is written elsewhere does not arrive: a claim about it would hold of any model.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.planner import Plan
from circuitspec.graph.edges import Receiver, format_receiver, inputs_of, is_reader, is_sender, precedes
from circuitspec.graph.paths import DeclaredPath, Impossible, Stop, everywhere, reads_at, spoken
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.prompt_set import TokenizedTask

_Tokens = tuple[frozenset[int], ...]
"""Token positions, by prompt."""

Reading = Literal["own", "past", "last"]
"""Where a reader reads: at its own tokens, at those up to its own, or at the last one."""


def arrives(written: Where, acting: Where, reading: Reading, task: TokenizedTask) -> bool:
    """Whether in some prompt something that is written at one place is read by what acts at another."""
    return any(_arriving(_tokens(written, task), _tokens(acting, task), reading, task))


def acting(paths: Sequence[DeclaredPath], ablation: AblationSpec) -> tuple[DeclaredPath, ...]:
    """The declared paths at the positions at which they are patched; none at node level."""
    if ablation.level == "node":
        return ()
    return tuple(everywhere(path) if ablation.positions == "all" else path for path in paths)


def tell_by_tokens(plan: Plan, declared: Sequence[DeclaredPath]) -> bool:
    """Whether something acts at named positions along these paths or the claims', so that tokens can part it."""
    paths = [*declared, *(path for claim in plan.claims for path in claim.paths)]
    return any(not stop.where.is_everywhere for path in paths for hop in path.hops for stop in hop)


def checked_reach(
    plan: Plan, declared: Sequence[DeclaredPath], shape: ModelShape, task: TokenizedTask, text: SourceText
) -> Plan:
    """The plan, with the pairs of neighbours on its paths that share no token in any prompt among `impossible`.

    With them pairs that meet at tokens that both name, but by different names. Raises CS227 for a hop, of a declared
    path or of a claim's, along which nothing arrives in any prompt.
    """
    reach = _Reach(shape, task)
    problems: list[Diagnostic] = []
    pairs = list(plan.impossible)
    for path in declared:
        problems += reach.dead_hops(path, text)
        pairs = reach.listed(pairs, path)
    for claim in plan.claims:
        for number, path in enumerate(claim.paths):
            dead = claim.dead_hops(number, reach.dead_hops(path, text))
            if dead:
                problems += dead
                break
            pairs = reach.listed(pairs, path)
    if problems:
        raise CircuitspecError(*dict.fromkeys(problems))
    return replace(plan, impossible=tuple(dict.fromkeys(pairs)))


@dataclass(frozen=True)
class _Reach:
    shape: ModelShape
    task: TokenizedTask
    _known: dict[Where, _Tokens] = field(default_factory=dict)  # many components act at few places
    _found: dict[tuple[_Tokens, Where, Reading], _Tokens] = field(default_factory=dict)
    _missed: dict[tuple[Where, Where], int] = field(default_factory=dict)

    def impossible(self, path: DeclaredPath) -> list[Impossible]:
        """Neighbours between which the roles allow an edge and the tokens do not, in any prompt."""
        found = []
        for senders, readers in pairwise(path.hops):
            for sender in senders:
                written = self._at(sender.where)
                for reader in readers:
                    for receiver in self._edges(sender, reader):
                        if any(self._arriving(written, reader, receiver)):
                            continue
                        reason = self._reason(sender, reader, receiver)
                        names = format_name(sender.component), format_receiver(receiver, self.shape)
                        found.append(Impossible(*names, reason, path.place, out_of_order=False))
        return found

    def listed(self, pairs: Sequence[Impossible], path: DeclaredPath) -> list[Impossible]:
        """These pairs and the path's own; what the names of positions alone keep apart says so.

        Positions are compared by name (`Where`): sender and reader meet unseen where different names are one token.
        """
        unseen = self._unseen(path)
        named = {(pair.sender, pair.receiver) for pair in unseen}
        others = [pair for pair in pairs if pair.place != path.place or (pair.sender, pair.receiver) not in named]
        return [*others, *unseen, *self.impossible(path)]

    def _unseen(self, path: DeclaredPath) -> list[Impossible]:
        """Neighbours that in some prompt meet at a token at which their positions have no name in common."""
        found = []
        for senders, readers in pairwise(path.hops):
            for sender, reader in itertools.product(senders, readers):
                for receiver in self._in_order(sender, reader):
                    n = self._unseen_in(sender.where, reads_at(reader, receiver))
                    if n:
                        names = format_name(sender.component), format_receiver(receiver, self.shape)
                        reason = (
                            f"writes at {spoken(sender.where)}, and that reads at {spoken(reader.where)}: positions "
                            f"are compared by name, though different ones are one token in {n} of {self.task.n} prompts"
                        )
                        found.append(Impossible(*names, reason, path.place, out_of_order=False))
        return found

    def _unseen_in(self, written: Where, read: Where) -> int:
        """In how many prompts these share a token at which they have no name in common."""
        if (written, read) not in self._missed:
            pairs = zip(self._at(written), self._at(read), self._at(written & read), strict=True)
            self._missed[written, read] = sum((here & own) > seen for here, own, seen in pairs)
        return self._missed[written, read]

    def dead_hops(self, path: DeclaredPath, text: SourceText) -> list[Diagnostic]:
        """CS227 for the first hop at which nothing that left the path's start arrives in any prompt."""
        reached: Mapping[Stop, _Tokens] = {stop: self._at(stop.where) for stop in path.hops[0]}
        for readers in path.hops[1:]:
            arrived: dict[Stop, _Tokens] = {}
            blocked: Diagnostic | None = None
            for sender, written in reached.items():
                for reader in readers:
                    for receiver in self._edges(sender, reader):
                        tokens = self._arriving(written, reader, receiver)
                        if any(tokens):
                            before = arrived.setdefault(reader, tokens)
                            if before != tokens:
                                arrived[reader] = tuple(a | b for a, b in zip(before, tokens, strict=True))
                        elif blocked is None:
                            blocked = self._blocked(sender, written, reader, receiver, path, text)
            if not arrived:
                return [] if blocked is None else [blocked]  # no pair in layer order at all is told otherwise
            reached = arrived
        return []

    def _blocked(
        self, sender: Stop, written: _Tokens, reader: Stop, receiver: Receiver, path: DeclaredPath, text: SourceText
    ) -> Diagnostic:
        """`written` is where the sender has what the path carries: not everywhere where it writes, perhaps."""
        name = format_name(sender.component)
        shown = format_receiver(receiver, self.shape)
        return Diagnostic(
            "CS227",
            f"there is no edge from {name} to {shown}: {name} {self._reason(sender, reader, receiver, written)}",
            text.span(path.place),
            hint="start the path where what it carries can be read: attention alone moves it to later positions",
        )

    def _edges(self, sender: Stop, reader: Stop) -> list[Receiver]:
        """The inputs of a reader to which the order of layers and the roles allow an edge."""
        inputs = self._in_order(sender, reader)
        return [receiver for receiver in inputs if sender.where.meets(reads_at(reader, receiver))]

    def _in_order(self, sender: Stop, reader: Stop) -> list[Receiver]:
        """The inputs of a reader to which the order of layers allows an edge."""
        if not (is_sender(sender.component) and is_reader(reader.component)):
            return []
        return [
            receiver
            for receiver in inputs_of(reader.component, reader.ports, self.shape)
            if precedes(sender.component, receiver, self.shape)
        ]

    def _arriving(self, written: _Tokens, reader: Stop, receiver: Receiver) -> _Tokens:
        """The tokens at which a reader acts on what is written at others."""
        reading: Reading = "past" if receiver.port in ("k", "v") else "own"
        if receiver.at_logits:
            reading = "last"
        key = written, reader.where, reading
        if key not in self._found:
            self._found[key] = _arriving(written, self._at(reader.where), reading, self.task)
        return self._found[key]

    def _at(self, where: Where) -> _Tokens:
        if where not in self._known:
            self._known[where] = _tokens(where, self.task)
        return self._known[where]

    def _reason(self, sender: Stop, reader: Stop, receiver: Receiver, carried: _Tokens | None = None) -> str:
        """Why nothing arrives; of a sender that has what a path carries at some of its tokens alone, if `carried`."""
        read = spoken(reader.where)
        writes = f"writes at {spoken(sender.where)}"
        if carried is not None and carried != self._at(sender.where):
            writes = f"has what the path carries at {self._named(sender.where, carried)} alone"
        if receiver.at_logits:
            return f"{writes}, and the logits are read at the last token, which is another in every prompt"
        if receiver.port in ("k", "v"):
            if writes.startswith("writes"):
                return f"does not write at {spoken(sender.where)} before that acts at {read}: attention looks back only"
            return f"{writes}, not before that acts at {read}: attention looks back only"
        return f"{writes}, and that reads at {read}, which are different tokens in every prompt"

    def _named(self, where: Where, tokens: _Tokens) -> str:
        """Those of its positions that some of the tokens are."""
        roles = [] if where.inverted else sorted(where.roles)
        found = [r for r in roles if any(own & {*self.task.tokens_at(r, i)} for i, own in enumerate(tokens))]
        return spoken(Where.at(*found)) if found and len(found) < len(roles) else "some of its tokens"


def _arriving(written: _Tokens, acting: _Tokens, reading: Reading, task: TokenizedTask) -> _Tokens:
    """The tokens at which a reader acts on what is written at others; of the logits, the last."""
    if reading == "last":
        return tuple(here & {length - 1} for here, length in zip(written, task.lengths, strict=True))
    pairs = zip(written, acting, strict=True)
    if reading == "past":
        return tuple(frozenset(t for t in own if here and t >= min(here)) for here, own in pairs)
    return tuple(here & own for here, own in pairs)


def _tokens(where: Where, task: TokenizedTask) -> _Tokens:
    found = []
    for prompt, length in enumerate(task.lengths):
        named = {token for role in where.roles for token in task.tokens_at(role, prompt)}
        found.append(frozenset(t for t in range(length) if (t in named) != where.inverted))
    return tuple(found)
