"""The lessons: one room each with its exercises, its panel and its model; and the checks."""
