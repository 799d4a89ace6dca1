"""The ``"process"`` kind; `poolkit.backends.process.pool` is where to start reading.

This module stays empty: a worker process imports it, and needs little of what stands beside it.
"""
