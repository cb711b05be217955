"""Small data sets held in memory, as Lightning data modules."""
