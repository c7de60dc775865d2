"""KuaiRand-Pure: exposures of short videos on five tabs, click and conversion, split by time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoctr.data.cache import Recipe
from autoctr.data.encoding import RawTable
from autoctr.data.hashing import file_digest
from autoctr.data.raw_files import find
from autoctr.data.schema import Column, Schema
from autoctr.data.source import FrameSource, need
from autoctr.data.splits import TimeSplit
from autoctr.data.statistics import Kind
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl

TABS = (1, 0, 4, 2, 6)
VALID_FROM, TEST_FROM = 20220505, 20220507

_FILES = ("interactions.parquet", "users.parquet", "videos.parquet")
_HINT = "They are KuaiRand-Pure (https://kuairand.com), logs and features as parquet"
_INTERACTION = ("user_id", "video_id", "author_id", "tag", "tab")
_VIDEO = ("video_type", "upload_type", "visible_status", "music_type")
_USER = (
    "user_active_degree",
    "is_lowactive_period",
    *(f"{what}_range" for what in ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")),
    *(f"onehot_feat{number}" for number in range(18)),
)

# No feedback column, and no count of the videos table, which is summed over the whole period: both leak the label.
FIELDS = (
    *(Column(name, min_count=1 if name == "tab" else 2) for name in _INTERACTION),
    Column("hour", min_count=1),
    Column("duration", Kind.NUMERIC, source="duration_ms", bins=20),
    *(Column(name) for name in (*_VIDEO, *_USER)),
)
SCHEMA = Schema(FIELDS, ("click", "conversion"), "tab", user="user_id", timestamp="time_ms")


def recipe(data: Path | None) -> Recipe:
    """Tabs 1, 0, 4, 2 and 6; train to 4 May 2022, valid 5 and 6 May, test 7 and 8 May."""
    files = find(data, "kuairand-pure", (_FILES,), _HINT)

    def read() -> RawTable:
        return RawTable(FrameSource(read_exposures(files)), info={"source": str(files[0].parent)})

    split = TimeSplit("date", (VALID_FROM, TEST_FROM))
    return Recipe("kuairand", SCHEMA, split, {"files": file_digest(files), "version": 1}, read)


def read_exposures(files: list[Path]) -> pl.DataFrame:
    """The distinct exposures on the kept tabs: inputs, ``click``, ``conversion``, ``date`` and ``time_ms``."""
    import polars as pl

    try:
        log, users, videos = (pl.read_parquet(file) for file in files)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"cannot read {files[0].parent}: {str(error).splitlines()[0]}") from error
    used = [*_INTERACTION, "date", "hourmin", "time_ms", "duration_ms", "is_click", "long_view"]
    for file, frame, columns in zip(files, (log, users, videos), (used, _USER, _VIDEO), strict=True):
        need(file, columns, frame.columns)
    return (
        log.unique(maintain_order=True)
        .filter(pl.col("tab").is_in(TABS))
        .select(
            *_INTERACTION,
            "date",
            "time_ms",
            "duration_ms",
            (pl.col("hourmin") // 100).alias("hour"),
            pl.col("is_click").cast(pl.Int8).alias("click"),
            (pl.col("is_click") * pl.col("long_view")).cast(pl.Int8).alias("conversion"),
        )
        .join(users.select("user_id", *_USER), on="user_id", how="left", maintain_order="left")
        .join(videos.select("video_id", *_VIDEO), on="video_id", how="left", maintain_order="left")
    )
