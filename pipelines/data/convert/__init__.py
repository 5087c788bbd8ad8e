"""Image formats of other programs, converted to Parquet shards."""
