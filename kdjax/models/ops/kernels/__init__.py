"""Operations of which XLA for TPUs makes slow programs, as Pallas kernels for one device."""
