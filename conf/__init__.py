"""Configs by noun: one group a noun, one file an idea."""
