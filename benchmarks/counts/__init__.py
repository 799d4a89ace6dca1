"""Counts that noise can't touch: instructions of the hot paths, system calls of process pools.

Times differ from run to run by more than most regressions cost. These counts don't: they are
compared with those in `counts.json`, see the README of the benchmarks.
"""
