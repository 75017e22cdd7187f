"""The published settings, one each, with every choice of the authors' code; nothing but the seed is drawn."""
