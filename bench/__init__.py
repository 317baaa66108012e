"""Measurements of ours against what else one could do; each ends in `ratio NAME VALUE`."""
