"""Recipes of generators."""
