"""Experiments: recipes, plans of many runs, their tables, and the numbers of the papers."""
