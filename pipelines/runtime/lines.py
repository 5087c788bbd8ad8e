"""Lines: the actor that carries progress to the driver. It imports nothing, so its process is up at once."""
