"""What the circuit's own parts do: per-component ablation, direct effects, backup, negative components.

In come records and a way to run more experiments; out come effects by component and by group. What is significant is
decided here, what is worth a warning in `analysis.warnings`.
"""
