"""The types of this directory's fixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kdjax.config import ModelConfig

ConfigWith = Callable[..., ModelConfig]
"""Makes a small config that differs in some settings."""
BatchOf = Callable[..., dict[str, np.ndarray]]
"""Makes a batch of packed documents."""
Scramble = Callable[..., Any]
"""Moves every parameter away from its start."""
