"""Trainable encoders, one file per shape of signal, their tokenizer and their folder on disk."""
