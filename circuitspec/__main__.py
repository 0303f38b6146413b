"""`python -m circuitspec`."""

from circuitspec.cli import main

main(prog_name="circuitspec")
