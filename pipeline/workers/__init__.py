"""A pool of workers that does units of items: who gets which, whom a death is charged to, what is told meanwhile.

Mining and the making of sidecars are done by it, in this process or on Ray. What a unit is, and how it is done, is
theirs.
"""
