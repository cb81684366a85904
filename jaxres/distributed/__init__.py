"""Devices and processes: the mesh, the strategies `jit` and `pmap`, the process group."""
