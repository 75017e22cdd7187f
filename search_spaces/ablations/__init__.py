"""Grids that redraw the paper's analyses: one setting varies, all others stay at the published best."""
