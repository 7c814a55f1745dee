"""An attack on every way in: valid input, changed in ways that people and disks change it.

Each kind of input has an oracle, written down in its module: what the changed input must give. An
input is refused by an error of ours, or accepted with just the content that it has; anything else
is a defect. ``python -m tests.hostile`` prints the table.
"""
