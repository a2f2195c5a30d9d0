"""Supervise one run on its machine: wait in line, fetch, train in a subprocess, publish, finish."""
