"""The load tester behind `stretto bench`: what a server does to its listeners when many of them come at once.

`load` says how requests come, `schedule` when, `listener` hears one piece, `playout` plays it against a clock, `runner`
runs one level, `sweep` one level after the other, `summary` makes numbers of a level, `report` and `chart` show them.
No audio is kept: of every chunk there are left the second at which it came and the seconds that it lasts.
"""
