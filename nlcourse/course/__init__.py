"""The course around the lessons: its command line, its folders, the making of its notebooks."""
