"""The configuration of a trial: its settings, recipes of them, and how people and earlier releases write them."""
