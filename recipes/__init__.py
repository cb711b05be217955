"""Recipes: primary configs that run as they are."""
