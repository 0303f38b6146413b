"""The figures of section 4, as printed."""


def test_figures_of_section_4(circuit_report):
    sufficient, necessary = circuit_report["hypotheses/ioi.circuit.yaml"].claims
    assert f"{sufficient.estimate.value:.2f}" == "1.02"
    assert f"{necessary.estimate.value:.2f}" == "-0.06"


def test_the_one_known_pitfall_is_the_one_that_section_4_discusses(circuit_report):
    """The circuit recovers more where the wrong answer is named first: 1.05 against 0.87."""
    assert [warning.code for warning in circuit_report["hypotheses/ioi.circuit.yaml"].warnings] == ["CS423"]
