#!/usr/bin/env python3
"""Medians with their range, of lines "OURS BASELINE" (and of their ratio) or of single numbers, from standard input."""
import statistics
import sys


def spread(values):
    digits = 0 if min(values) >= 1000 else 1 if min(values) >= 10 else 2
    text = f"{statistics.median(values):,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def main():
    name, unit, *rest = sys.argv[1:]
    baseline = rest[0] if rest else "baseline"
    rows = [[float(word) for word in line.split()] for line in sys.stdin if line.strip()]
    if not rows:
        sys.exit(f"{name}: nothing was measured")
    print(f"{name}: {spread([row[0] for row in rows])} {unit}")
    if len(rows[0]) > 1:
        print(f"{baseline}: {spread([row[1] for row in rows])} {unit}")
        print(f"  ratio: {spread([row[0] / row[1] for row in rows])}, in {len(rows)} interleaved blocks")


main()
