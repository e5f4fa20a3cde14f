"""What XLA for TPUs makes slow programs of, as Pallas kernels, and their division among the devices
of a mesh."""
