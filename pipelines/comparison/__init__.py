"""The comparison with other initialisations, one resumable cell at a time."""
