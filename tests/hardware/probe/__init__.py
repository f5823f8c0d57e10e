"""Asks a libcuda what it answers at the edges: one line a question, `section: question: answer`.

Run natively on a real GPU it writes down facts; on the soft GPU or through a pool it shows where
they behave otherwise. It uses the driver API by ctypes alone. Each section is a process of its own,
because many of the questions break a context.

    PYTHONPATH=tests/hardware python -m probe [SECTION ...]
"""
