"""Two runs against each other: matched cells, paired differences, and a gate for continuous integration."""
