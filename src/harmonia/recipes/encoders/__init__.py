"""Recipes of encoders."""
