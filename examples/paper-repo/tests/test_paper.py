"""The figures of section 4, as printed."""


def test_figures_of_section_4(circuit_report):
    sufficient, necessary = circuit_report["hypotheses/ioi.circuit.yaml"].claims
    assert f"{sufficient.estimate.value:.2f}" == "1.02"
    assert f"{necessary.estimate.value:.2f}" == "-0.06"


def test_the_known_pitfalls_are_those_that_section_4_discusses(circuit_report):
    """Means go over the 48 prompts themselves; more is recovered where the wrong answer is named first (1.05 against
    0.87); and a0.h3, outside the circuit, is negative in the whole model."""
    codes = [warning.code for warning in circuit_report["hypotheses/ioi.circuit.yaml"].warnings]
    assert codes == ["CS404", "CS423", "CS437"]
