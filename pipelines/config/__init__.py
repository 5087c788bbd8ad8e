"""The configuration of one run: a TOML file, validated field by field."""
