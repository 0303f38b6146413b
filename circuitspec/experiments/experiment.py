"""What is run: experiments as values, without a model. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

import rfc8785

from circuitspec.experiments.subspaces.subspace import Subspace
from circuitspec.graph.edges import Receiver, Sender
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS, RESAMPLE, ZERO, AblationKind
from circuitspec.hypothesis_file.grammar.component_kinds import ATTENTION_PATTERN
from circuitspec.hypothesis_file.grammar.components import Feature, Head, Mlp
from circuitspec.hypothesis_file.grammar.names import format_name

SourceKind: TypeAlias = str
"""The name of a row of `ABLATIONS` whose patched values are its own."""
Direction = Literal["noising", "denoising"]


@dataclass(frozen=True)
class Noised:
    """The clean prompts with Gaussian noise added to their token embeddings at `where` (ROME's corruption).

    `std` is in units of the standard deviation of the model's token embeddings over its vocabulary.
    Whatever involves noise is run with `draws` draws of it, and metrics are averaged over them, prompt
    by prompt. A draw depends on `seed`, its own number and the prompt's number alone.
    """

    std: float
    where: Where
    draws: int
    seed: int

    def __str__(self) -> str:
        at = "every token" if self.where.is_everywhere else ", ".join(sorted(self.where.roles))
        return f"clean + noise of {self.std:g} std at {at} ({self.draws} draws)"


Variant: TypeAlias = str | Noised
"""Which prompts a run is on: "clean", a corruption's name, or the clean ones with noise."""


def texts_of(variant: Variant) -> str:
    """The name of the texts that a variant's prompts have: noise does not change them."""
    return "clean" if isinstance(variant, Noised) else variant


@dataclass(frozen=True)
class Own:
    """Means over one of `blocks` parts of the prompts that they are over: each prompt is given its own part's."""

    blocks: int

    def __str__(self) -> str:
        return f"in {self.blocks} parts"


@dataclass(frozen=True)
class Without:
    """Means over all prompts that they are over but one of `cells` parts, the same for every prompt."""

    cell: int
    cells: int

    def __str__(self) -> str:
        return f"without part {self.cell + 1} of {self.cells}"


Part: TypeAlias = Own | Without
"""Which of the prompts a mean is taken over, where it is not all: such runs tell how far the mean can be trusted."""


@dataclass(frozen=True)
class Source:
    """Where patched values come from: the run on `prompts`, as it is or averaged, or (zeros) no prompts.

    `kind` is the name of a row of `ABLATIONS`. Means are taken position by position, over prompts of one template or
    over all (or over a `part` of these).
    """

    kind: SourceKind
    prompts: Variant | None
    part: Part | None = None

    def __post_init__(self) -> None:
        if self.kind not in ABLATIONS or self.row.source != self.kind:
            raise ValueError(f"no patched values are called {self.kind}")
        if (self.row.made_of == "nothing") != (self.prompts is None):
            raise ValueError("patched values come from prompts exactly when they are made of a run: zeros are not")
        if self.part is not None and not self.is_mean:
            raise ValueError("only a mean is taken over a part of the prompts")

    def __str__(self) -> str:
        if self.prompts is None:
            return self.kind
        return f"{self.kind} of {self.prompts}" + ("" if self.part is None else f" {self.part}")

    @property
    def row(self) -> AblationKind:
        """All that is known of values of this kind."""
        return ABLATIONS[self.kind]

    @property
    def is_mean(self) -> bool:
        return self.row.averages

    @property
    def is_recorded(self) -> bool:
        """Whether values are made, prompt by prompt, of what the run on the source's prompts has."""
        return self.row.made_of == "run"

    @property
    def is_run(self) -> bool:
        """Whether they are that run's own: everything ablated is then the run on the source's prompts."""
        return self.row.is_run

    @property
    def whole(self) -> Source:
        """The same over all prompts."""
        return self if self.part is None else Source(self.kind, self.prompts)


ZEROS: Final = Source(ZERO.name, None)


def values_in(prompts: Variant) -> Source:
    """The values that components have in the run on these prompts, as they are."""
    return Source(RESAMPLE.name, prompts)


CLEAN_VALUES: Final = values_in("clean")


@dataclass(frozen=True)
class Site:
    """A component and the positions at which it is patched: its whole value, or the part in a `subspace` alone."""

    component: NodeComponent
    where: Where
    subspace: Subspace | None = None


@dataclass(frozen=True)
class SourcedSites:
    """Sites that take the values of one source."""

    source: Source
    sites: frozenset[Site]


EVERYWHERE = Where.everywhere()


@dataclass(frozen=True)
class Sent:
    """A component whose value arrives changed at some receiver, at the positions `where`.

    The value is the source's or, with `inputs`, what the component computes when these of its inputs read what
    is said there and its others what they read in the frozen run (path level). With `prompts`, a variant's name, the
    value is that of the run on these; of a component with `inputs`, it is that run which is frozen before it.
    """

    component: Sender
    where: Where
    inputs: frozenset[Reading] = frozenset()
    prompts: str | None = None


@dataclass(frozen=True)
class Reading:
    """A receiver that reads changed values of these senders, at the positions `where`.

    Without senders it reads what it does in the frozen run. At the end of an open path a query, key or value is read
    so by one `head` alone (keys and values by its queries at the positions `acting`), and by others as it is.
    """

    receiver: Receiver
    senders: frozenset[Sent]
    where: Where = EVERYWHERE
    acting: Where = EVERYWHERE
    head: Head | None = None

    @property
    def at_logits(self) -> bool:
        return self.receiver.at_logits


@dataclass(frozen=True)
class PathRule:
    """How values travel at path level: everything that is not sent is frozen (Wang et al. 2022, appendix B).

    `frozen` says at which values: those of the base run, into which the source's values are sent; or the
    source's, into which the base run's own are sent (Goldowsky-Dill et al. 2023: all other paths are ablated).
    With `through_mlps` MLPs are not frozen but recomputed, all but the `named` ones, which are stops of the paths. So
    are `features`, by what they are multiplied with: what else passes their dictionary's place goes on.
    """

    frozen: Literal["base", "source"]
    through_mlps: bool
    named: frozenset[Mlp] = frozenset()
    features: frozenset[Feature] = frozenset()


Level = Literal["node", "edge", "path"]


@dataclass(frozen=True)
class Experiment:
    """One patched (or, with nothing to patch, plain) run over all prompts.

    `base` says which prompts are run, `source` where patched values come from. They replace the values of
    `sites` for all that comes after them (node level), or those of senders for single receivers (`readings`): in one
    run with everything else recomputed (edge level), or along paths by a `rule` (path level). At node level other sites
    may take values of other sources in the same run (`beside`). Metrics are about the answers of the prompts that are
    `expected`: of the clean ones, unless said otherwise. Where it is `repeated` with prompts drawn anew, metrics are
    means over its own run and those, prompt by prompt.
    Two experiments with equal content are the same experiment.
    """

    base: Variant
    source: Source | None = None
    sites: frozenset[Site] = frozenset()
    readings: frozenset[Reading] = frozenset()
    rule: PathRule | None = None
    beside: frozenset[SourcedSites] = frozenset()
    expected: str = "clean"
    repeated: tuple[Experiment, ...] = ()

    def __post_init__(self) -> None:
        if any(one.repeated for one in self.repeated):
            raise ValueError("what repeats an experiment is one run")
        if self.beside and not self.sites:
            raise ValueError("further patches go beside sites")
        if self.sites and self.readings:
            raise ValueError("an experiment patches sites or edges, not both")
        if bool(self.sites or self.readings) != (self.source is not None):
            raise ValueError("an experiment has a source exactly when it patches something")
        if self.rule is not None and not self.readings:
            raise ValueError("a rule for paths goes with readings")
        if self.rule is not None and any((r.receiver.port is None) != (r.head is None) for r in self.readings):
            raise ValueError("a path that ends at a query, key or value says of which head")

    @property
    def patches_patterns(self) -> bool:
        """Whether it replaces what some heads attend to."""
        return any(site.component.kind is ATTENTION_PATTERN for site in self.sites)

    @property
    def patches_subspaces(self) -> bool:
        """Whether it replaces parts of values alone."""
        return any(site.subspace is not None for patch in self.patches for site in patch.sites)

    @property
    def level(self) -> Level:
        if not self.readings:
            return "node"
        return "edge" if self.rule is None else "path"

    @property
    def direction(self) -> Direction | None:
        """Noising patches the clean run, denoising a corrupt one (Heimersheim & Nanda 2024, section 2.3)."""
        if self.source is None:
            return None
        return "noising" if self.base == "clean" else "denoising"

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Its own prompts, then those that its patched values come from."""
        own = (self.base, *(s.prompts for s in self.sources if s.prompts is not None))
        others = (variant for one in self.repeated for variant in one.variants)
        return tuple(dict.fromkeys((*own, *self.sent_prompts, *others)))

    @property
    def each(self) -> tuple[Experiment, ...]:
        """The runs that its metrics are means over: itself, where it is not repeated."""
        return (replace(self, repeated=()), *self.repeated) if self.repeated else (self,)

    @cached_property
    def sent_prompts(self) -> tuple[str, ...]:
        """The variants that values on its paths are of, where these have variants of their own."""
        sent = (one.prompts for reading in all_readings(self.readings) for one in reading.senders)
        return tuple(sorted({prompts for prompts in sent if prompts is not None}))

    @property
    def patches(self) -> tuple[SourcedSites, ...]:
        """At node level, what is patched from each source, its own first."""
        own = () if self.source is None else (SourcedSites(self.source, self.sites),)
        return (*own, *sorted(self.beside, key=lambda patch: str(patch.source)))

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where patched values come from, its own source first; none where nothing is patched."""
        return tuple(patch.source for patch in self.patches)

    @property
    def run(self) -> Experiment:
        """What is run for it, however it is scored."""
        return self if self.expected == "clean" else replace(self, expected="clean")

    @property
    def averages(self) -> bool:
        """Whether means are patched in."""
        return self.source is not None and self.source.is_mean

    def over(self, part: Part | None) -> Experiment:
        """The same with means over a part of the prompts; itself where no means are patched in."""
        if self.source is None or not self.averages:
            return self
        return replace(self, source=replace(self.source, part=part))

    @property
    def roles(self) -> frozenset[str]:
        """Every position that it names."""
        named = {role for patch in self.patches for site in patch.sites for role in site.where.roles}
        for reading in all_readings(self.readings):
            named |= reading.where.roles | reading.acting.roles
            named |= {role for sent in reading.senders for role in sent.where.roles}
        return frozenset(named)

    @property
    def draws(self) -> int:
        """How often it is run: once, or as often as noise is drawn."""
        return max(v.draws if isinstance(v, Noised) else 1 for v in self.variants)

    @cached_property
    def digest(self) -> str:
        """Content hash, the same on every machine."""
        content = {
            "base": _content(self.base),
            "source": None if self.source is None else _source_content(self.source),
            "sites": sorted(map(_site_content, self.sites)),
        }
        if self.readings:
            known: dict[Reading, str] = {}
            content["readings"] = sorted(_reading_digest(reading, known) for reading in self.readings)
        if self.beside:
            content["beside"] = sorted(
                [_source_content(p.source), sorted(map(_site_content, p.sites))] for p in self.beside
            )
        if self.rule is not None:
            named = sorted(format_name(mlp) for mlp in self.rule.named)
            content["rule"] = {"frozen": self.rule.frozen, "through_mlps": self.rule.through_mlps, "named": named}
            if self.rule.features:
                content["rule"]["features"] = sorted(map(format_name, self.rule.features))
        if self.expected != "clean":
            content["expected"] = self.expected
        if self.repeated:
            content["repeated"] = sorted(one.digest for one in self.repeated)
        return _hash(content)


HopPass: TypeAlias = tuple[frozenset[Sent], str | None]
"""A pass of a path-level experiment: its senders, and the variant whose run is frozen (None: what the rule says)."""


def hop_passes(experiment: Experiment) -> tuple[HopPass, ...]:
    """The passes that a path-level experiment takes, one for each set of senders, each after those it needs.

    One without senders is the frozen run.
    """
    found: dict[HopPass, None] = {}

    def visit(senders: frozenset[Sent], frozen: str | None) -> None:
        if (senders, frozen) in found:
            return
        for sent in senders:
            if sent.inputs:
                visit(frozenset(), sent.prompts)
            for reading in sent.inputs:
                visit(reading.senders, sent.prompts)
        found[senders, frozen] = None

    for reading in experiment.readings:
        visit(reading.senders, None)
    return tuple(found)


def is_open(experiment: Experiment) -> bool:
    """Whether some path ends before the logits, so that one more run recomputes all that comes after its end."""
    return any(not reading.at_logits for reading in experiment.readings)


def means_of(experiments: Iterable[Experiment]) -> frozenset[Source]:
    """The means that these experiments patch in, each over all prompts: its parts take no pass of their own."""
    return frozenset(source.whole for e in experiments for source in e.sources if source.is_mean)


def passes(experiments: tuple[Experiment, ...], known: frozenset[Source] = frozenset(), averaged: float = 1) -> float:
    """Passes over all prompts that running these experiments together takes.

    Every mean (but the `known` ones) takes `averaged`: over how many prompts it goes, as a multiple of those that are
    run. Every variant that is run plain or recorded takes one, every patched experiment one, and one at path level its
    hops; what involves noise, one for each draw.
    """
    experiments = tuple(dict.fromkeys(one.run for e in experiments for one in e.each))
    sources = {source for e in experiments for source in e.sources}
    means = averaged * len(means_of(experiments) - known)
    run: set[Variant] = {"clean", *(e.base for e in experiments if e.source is None or e.level == "path")}
    run |= {s.prompts for s in sources if s.is_recorded and s.prompts is not None}
    run |= {prompts for e in experiments for prompts in e.sent_prompts}
    unpatched = sum(v.draws if isinstance(v, Noised) else 1 for v in run)
    return means + unpatched + sum(e.draws * runs_of(e) for e in experiments if e.source is not None)


def runs_of(experiment: Experiment) -> int:
    """How many patched runs an experiment takes: one, and at path level one a hop."""
    if experiment.level != "path":
        return 1
    assert experiment.rule is not None
    hops = hop_passes(experiment)
    # the frozen run is a plain run itself, unless it is frozen at the source's values
    run = [senders for senders, frozen in hops if senders or (frozen is None and experiment.rule.frozen == "source")]
    return len(run) + is_open(experiment)


def all_readings(readings: frozenset[Reading]) -> frozenset[Reading]:
    """These, and those that the values of their senders are computed from."""
    found: set[Reading] = set()
    waiting = list(readings)
    while waiting:
        reading = waiting.pop()
        if reading not in found:
            found.add(reading)
            waiting += [inner for sent in reading.senders for inner in sent.inputs]
    return frozenset(found)


def _reading_digest(reading: Reading, known: dict[Reading, str]) -> str:
    if reading not in known:
        senders = sorted(
            [
                format_name(s.component),
                s.where.canonical(),
                *sorted(_reading_digest(r, known) for r in s.inputs),
                *([] if s.prompts is None else [f"in {s.prompts}"]),
            ]
            for s in reading.senders
        )
        receiver = f"{format_name(reading.receiver.component)}<{reading.receiver.port or ''}>"
        acting = [] if reading.acting.is_everywhere else [reading.acting.canonical()]
        head = [] if reading.head is None else [{"head": format_name(reading.head)}]
        known[reading] = _hash([receiver, reading.where.canonical(), senders, *acting, *head])
    return known[reading]


def _hash(content: Any) -> str:
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest()


def _site_content(site: Site) -> list[str]:
    within = [] if site.subspace is None else [f"subspace {site.subspace.digest}"]
    return [format_name(site.component), site.where.canonical(), *within]


def _source_content(source: Source) -> list[Any]:
    content = [source.kind, _content(source.prompts)]
    match source.part:
        case None:
            return content
        case Own(blocks):
            return [*content, {"own": blocks}]
        case Without(cell, cells):
            return [*content, {"without": [cell, cells]}]


def _content(variant: Variant | None) -> Any:
    if isinstance(variant, Noised):
        return {
            "noise": {
                "std": variant.std,
                "where": variant.where.canonical(),
                "draws": variant.draws,
                "seed": variant.seed,
            }
        }
    return variant
