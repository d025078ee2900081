"""One YAML file, one run: recipes, tasks, the command line."""
