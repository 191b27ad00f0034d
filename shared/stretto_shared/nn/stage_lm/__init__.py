"""The language model of one stage of a token cascade: what it is told, its network, and reading it column by column."""

from stretto_shared.nn.stage_lm.config import StageCondition, StageConfig
from stretto_shared.nn.stage_lm.incremental import Biases, Feed, StageCache, cache_bytes, open_window, read
from stretto_shared.nn.stage_lm.model import UNTOLD, StageLM
from stretto_shared.nn.stage_lm.positions import Layout, relative_bucket

__all__ = [
    "UNTOLD",
    "Biases",
    "Feed",
    "Layout",
    "StageCache",
    "StageCondition",
    "StageConfig",
    "StageLM",
    "cache_bytes",
    "open_window",
    "read",
    "relative_bucket",
]
