"""Lightning modules, networks and data for the recipes: ordinary training code that knows nothing of pruning."""
