"""Sweeps: a file for each, with CELLS, TASKS, SHARED and, where fields vary too, VARY."""
