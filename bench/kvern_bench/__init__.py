"""The benchmark of Kvern against its peers, in one run on one machine.

Read `cases.py` first (what a case is), then `rows/` (what is measured), `peers/` (who is measured), `targets.py` (the
figures to reach) and `report.py` (what is printed and written).
"""
