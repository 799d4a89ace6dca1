"""The kinds of pools: one file each, all behind `poolkit._backend.Backend`."""
