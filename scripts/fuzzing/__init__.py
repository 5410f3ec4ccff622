"""Fuzzing: what reads the bytes of strangers, under inputs that nobody thought of.

`targets` says what is run and what must hold for any bytes; `engines` makes the bytes.
"""
