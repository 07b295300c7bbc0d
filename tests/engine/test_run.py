"""The main job on a real Ray cluster: complete, exactly once, resumable, independent of how it is divided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests_support import SmallField, read_shards

from deblend_batch.engine.run import process_field
