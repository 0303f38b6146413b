"""The high-level causal model of a file: variables computed from slots, and what it answers. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circuitspec.hypothesis_file.grammar.variable_expressions import (
    Expression,
    Scalar,
    evaluate,
    parse_expression,
    references,
    spelled,
)
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.prompts.templates.template import Field, Template, Values, parse_template


@dataclass(frozen=True)
class HighLevelModel:
    """Variables in their order, each with its expression, and the answer as a text with variables and slots in it."""

    variables: Mapping[str, Expression]
    output: Template

    @classmethod
    def of(cls, spec: AbstractionSpec, task: TaskSpec) -> HighLevelModel:
        """The model of a checked file: where `output` is a variable, that takes the slot's place in the answer, and is
        the whole answer to prompts from a file."""
        output = parse_template(spec.output)
        if not output.fields and isinstance(task.answer, str):
            name = Field(spec.output.strip())
            pieces = parse_template(task.answer).pieces
            output = Template(tuple(name if isinstance(piece, Field) else piece for piece in pieces))
        elif not output.fields and task.file is not None:
            output = Template((Field(spec.output.strip()),))
        return cls({name: parse_expression(text) for name, text in spec.variables.items()}, output)

    @property
    def reads(self) -> tuple[str, ...]:
        """The slots or columns that variables and answer are made of."""
        named = [one.name for expression in self.variables.values() for one in references(expression)]
        named += [field.slot for field in self.output.fields]
        return tuple(dict.fromkeys(name for name in named if name not in self.variables))

    def run(self, slots: Values, put: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        """Every variable's value where slots hold these values and the variables in `put` are set.

        Raises NotEvaluated where a text that is compared as a number spells none.
        """
        values: dict[str, Scalar] = {}

        def read(name: str, column: str | None) -> Scalar:
            return values[name] if name in values else Field(name, column).read(slots)

        for name, expression in self.variables.items():
            values[name] = put[name] if put is not None and name in put else evaluate(expression, read)
        return values

    def slots_read(self, variable: str) -> frozenset[str]:
        """The slots that a variable is computed from, by way of other variables too."""
        names = {one.name for one in references(self.variables[variable])}
        inner = [self.slots_read(name) for name in names & self.variables.keys()]
        return frozenset(names - self.variables.keys()).union(*inner)

    def answer(self, slots: Values, put: Mapping[str, Scalar] | None = None) -> str:
        """What it answers. Raises as `run` does."""
        return self.output.render({**slots, **{name: spelled(value) for name, value in self.run(slots, put).items()}})
